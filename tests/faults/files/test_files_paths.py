"""Names and paths that lead elsewhere: refused, wherever a person or a file says them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from research.cli import app as cli
from research.driver.best_models import keep_best, last_whole
from research.errors import CorruptFile, UserError
from research.experiments.variants import Variant
from research.ledger.log import Ledger
from research.planning.preflight import check_place
from research.store.folders import inside, write_folder
from research.views.report.elements import line, picture
from research.views.show import as_json, glance
from tests.support.synthetic import new_ledger, row, settings, trial
from vae.config import ConfigError
from vae.data import Arrays, CelebA, DataError, ImageFolder, load_training
from vae.train_config import TrainConfig

TRAVERSAL = "22 path traversal"
NAMES = [
    "../x",
    "/abs",
    "a/b",
    "a\\b",
    ".",
    "..",
    ".hidden",
    "",
    "a\0b",
    "a\nb",
    "a\n",
    "x" * 101,
    "x" * 300,
    "ü",
    "a b",
    "$(x)",
]
PATHS = ["../outside", "/etc/passwd", "trials/../../outside", "a\0b", "../" * 50 + "etc/passwd"]


@pytest.mark.fault(TRAVERSAL)
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_sweep_has_a_plain_name(tmp_path, tally, name):
    """Asked for on the command line, or found in a ledger: one of the allowed letters each, or refused."""
    tally.happened()
    with pytest.raises(UserError, match="choose another --name"):
        check_place(tmp_path, name)
    with pytest.raises(ValidationError):
        settings(name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(TRAVERSAL)
@pytest.mark.parametrize("name", ["../x", "a\nb"])
def test_the_command_line_refuses_in_one_line(tmp_path, tally, capsys, monkeypatch, name):
    """Exit code 2, nothing made."""
    monkeypatch.setattr(
        sys, "argv", ["research", "sweep", "quickstart", "--storage", str(tmp_path / "s"), "--name", name]
    )
    tally.happened()
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(TRAVERSAL)
@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_what_a_ledger_names_is_inside_its_sweep(tmp_path, tally, path):
    """A checkpoint or picture elsewhere is neither read, nor copied into a model, nor removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "state.safetensors").write_bytes(b"precious")
    ledger = new_ledger(tmp_path / "sweep")
    ledger.append(trial(0))
    ledger.append(row(0, 1, -1.0, checkpoint=path, checkpoint_sha256="0", pictures={"samples": path}))
    tally.happened()
    with pytest.raises(CorruptFile, match="is not inside"):
        inside(ledger.directory, path)
    continued, (problem,) = last_whole(ledger.directory, ledger.trials[0], 1)
    assert (continued, "is not inside" in problem) == (None, True)
    ledger.append(row(0, 2, -0.5, "complete", checkpoint=path, checkpoint_sha256="0", pictures={"samples": path}))
    (problem,) = keep_best(ledger, ledger.directory)
    assert "is not inside" in problem
    assert (outside / "state.safetensors").read_bytes() == b"precious"
    as_json(ledger)
    glance(ledger)


@pytest.mark.fault(TRAVERSAL)
def test_what_is_sampled_names_no_folder(tmp_path, tally):
    """A hyperparameter's value with a path in it is a value: trials' folders are numbered, ablations' cleaned."""
    value = "../../escaped\n\0" + "x" * 300
    ledger = new_ledger(tmp_path / "sweep")
    ledger.append(trial(0, params={value: value}))
    tally.happened()
    assert Ledger.open(tmp_path / "sweep").trials[0].created.params == {value: value}
    glance(ledger)
    folder = Variant(label=f"network.kind={value}", config=TrainConfig()).folder
    assert Path(folder).name == folder
    assert len(folder) <= 100
    assert "\0" not in folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]


@pytest.mark.fault(TRAVERSAL)
def test_a_folder_has_plain_names_in_it(tmp_path, tally):
    """Nothing is written beside the folder."""
    for name in ("../x", "/abs", "a/b", ".", "..", "", "a\0b"):
        tally.happened()
        with pytest.raises(ValueError, match="must be plain"):
            write_folder(tmp_path / "model", {name: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(TRAVERSAL)
def test_a_report_shows_pictures_and_no_other_file_of_its_reader(tmp_path, tally):
    """A link, or something else by a picture's name, in a model folder that somebody sent is not put into the page."""
    secret = tmp_path / "secret"
    secret.write_text("canary")
    (tmp_path / "a.png").symlink_to(secret)
    (tmp_path / "b.png").write_text("canary")
    for name in ("a.png", "b.png"):
        tally.happened()
        shown = picture(tmp_path / name, "x", line("x"))
        assert (shown.content, shown.problem) == ("", f"{name} is no picture")


@pytest.mark.fault(TRAVERSAL)
@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "", "."])
@pytest.mark.parametrize("kind", [Arrays, ImageFolder])
def test_a_path_of_data_that_is_none_is_refused(tmp_path, tally, kind, path):
    """One line from the reader, whatever the system makes of the name."""
    tally.happened()
    with pytest.raises((DataError, ConfigError)):
        load_training(kind(path=path), tmp_path)


@pytest.mark.fault(TRAVERSAL)
def test_a_list_of_faces_names_files_of_its_folder(tmp_path, tally):
    """CelebA's partition file comes from elsewhere: a path in it is refused."""
    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    for name in ("../../secret.jpg", "/etc/passwd"):
        (tmp_path / "celeba" / "list_eval_partition.txt").write_text(f"{name} 0\n")
        tally.happened()
        with pytest.raises(DataError, match="is no name of an image"):
            load_training(CelebA(), tmp_path)


@pytest.mark.fault(TRAVERSAL)
def test_a_recorded_data_directory_that_is_none_is_passed_over(tmp_path, tally):
    """A record's ``data_dir`` is a hint: what is no directory's name is as none."""
    from research.models.apply import _recorded_data_dir

    for value in ("a\0b", 3, ["x"], {}, "/nowhere", None, "x" * 5000):
        (tmp_path / "record.json").write_text(json.dumps({"data_dir": value}))
        tally.happened()
        assert _recorded_data_dir(tmp_path) is None
