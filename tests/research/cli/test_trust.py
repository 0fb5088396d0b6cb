"""A record from elsewhere contacts no bucket and runs no code before its user was asked; one's own is never asked about."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import pytest

from research.ledger.log import Ledger
from research.ledger.records import TrialRecord
from research.store import data_copy
from research.store.folders import write_folder
from tests.support.synthetic import new_ledger, row, trial
from vae.serialization import config_hash, from_dict, to_dict

PART = """
from dataclasses import dataclass
import pathlib
pathlib.Path({mark!r}).touch()
from vae.objectives import Elbo as Mine
"""
BUCKET = "s3://strangers-bucket/data"
CONFIG = {"network": {"kind": "mlp", "hidden": [4]}, "latent_size": 2, "epochs": 1, "data": {"kind": "digits"}}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A working directory with a user's part, a cache of its own, and every contact with a bucket written down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RESEARCH_DATA_DIR", raising=False)
    contacted = []

    class Store:
        def __init__(self, url):
            contacted.append(url)

        def listing(self):
            return {}

    monkeypatch.setattr(data_copy, "ObjectStore", Store)
    (tmp_path / "part.py").write_text(PART.format(mark=str(tmp_path / "ran")))
    return tmp_path, contacted


def config(*, external):
    """JSON of a small config, with the user's part or without."""
    part = {"objective": {"kind": "external", "path": "part.py:Mine", "settings": {}}}
    return to_dict(from_dict(CONFIG)) | (part if external else {})


def sweep(folder, *, external, data_dir):
    """A sweep that ended, with its one kept model; where the model is."""
    values = config(external=external)
    made = from_dict(CONFIG)
    ledger = new_ledger(folder, data_dir=data_dir)
    ledger.append(trial(0, config=values, config_hash=config_hash(made), seed=0))
    ledger.append(row(0, 1, -10.0, "complete"))
    record = TrialRecord.of(ledger, 0).to_json()
    model = folder / "models" / "trial-0000"
    write_folder(model, {"record.json": record.encode(), "config.json": json.dumps(values).encode()})
    return model


def asked(verb, place):
    """The command line that trains what is at ``place``."""
    more = {"train": ["--out", "out"], "ablate": ["--change", "latent_size=3", "--seeds", "1", "--out", "out"]}
    return [verb, str(place), *more.get(verb, [])]


@pytest.mark.parametrize("form", ["folder", "record.json", "config.json"])
@pytest.mark.parametrize("verb", ["reproduce", "train", "ablate"])
def test_verb_with_a_foreign_record_refuses_without_a_terminal(world, research, verb, form):
    """One line that names what it would do and ``--trust``; nothing was contacted, nothing ran."""
    if (verb, form) == ("reproduce", "config.json"):
        pytest.skip("a config is no record")
    folder, contacted = world
    model = sweep(folder / "s", external=True, data_dir=BUCKET)
    shutil.move(model, folder / "strange")
    code, said = research(*asked(verb, folder / "strange" / ("" if form == "folder" else form)))
    assert code == 2
    assert said.count("\n") == 1
    assert "run the external part 'part.py:Mine'" in said
    assert str(folder / "part.py") in said
    # train never reads data from where a record says, nor does a verb that is given the config alone
    assert (BUCKET in said) == (verb != "train" and form != "config.json")
    assert "add --trust" in said
    assert contacted == []
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("verb", ["reproduce", "ablate"])
@pytest.mark.parametrize("trust", ["--trust", "yes", "no"])
def test_verb_asks_on_a_terminal(world, research, verb, trust, monkeypatch):
    """Yes goes on, and contacts; no does nothing; ``--trust`` is not asked."""
    folder, contacted = world
    shutil.move(sweep(folder / "s", external=False, data_dir=BUCKET), folder / "strange")
    questions = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text, **_: questions.append(text) or trust == "yes")
    code, said = research(*asked(verb, folder / "strange"), *(["--trust"] if trust == "--trust" else []))
    assert code == 2
    assert len(questions) == (trust != "--trust")
    assert contacted == ([] if trust == "no" else [BUCKET])
    assert ("is not trusted" in said) == (trust == "no")


@pytest.mark.parametrize("place", ["s", "s/models/trial-0000", "s/models/trial-0000/record.json", "."])
def test_reproduce_of_a_sweeps_own_record_is_not_asked(world, research, place, monkeypatch):
    """In a sweep whose ledger verifies and says the same: the bucket is contacted as ever."""
    folder, contacted = world
    model = sweep(folder / "s", external=True, data_dir=BUCKET)
    if place == ".":
        monkeypatch.chdir(model)
    _, said = research("reproduce", place)
    assert "--trust" not in said
    assert contacted == [BUCKET] or (folder / "ran").exists() or place == "."


@pytest.mark.parametrize("how", ["other bucket", "other part", "damaged ledger"])
def test_reproduce_of_a_record_that_its_sweep_does_not_know_is_refused(world, research, how):
    """A stranger's record that was put into one's own sweep is a stranger's."""
    folder, contacted = world
    model = sweep(folder / "s", external=how == "damaged ledger", data_dir=BUCKET)
    record = TrialRecord.from_json((model / "record.json").read_bytes(), "")
    if how == "damaged ledger":
        (folder / "s" / "ledger" / "00000001.json").write_text("{}")
    elif how == "other bucket":
        record = dataclasses.replace(record, data_dir="gs://others/x")
    else:
        record = dataclasses.replace(record, config=config(external=True))
    write_folder(model, {"record.json": record.to_json().encode(), "config.json": b"{}"})
    code, said = research("reproduce", str(model))
    assert (code, "add --trust" in said) == (2, True)
    assert contacted == []
    assert not (folder / "ran").exists()


def test_reproduce_of_a_stack_names_the_parts_of_its_members(world, research):
    """With ``--stacked`` the configs of the others train, too."""
    folder, _ = world
    model = sweep(folder / "s", external=False, data_dir=None)
    values = json.loads((model / "record.json").read_bytes())
    values["stacked"] = {"position": 0, "configs": [values["config"], config(external=True)], "epochs": [1, 1]}
    (folder / "one.json").write_text(json.dumps(values))
    code, said = research("reproduce", str(folder / "one.json"), "--stacked")
    assert (code, "part.py:Mine" in said) == (2, True)
    assert not (folder / "ran").exists()
    code, said = research("reproduce", str(folder / "one.json"))
    assert "--trust" not in said


def test_record_of_ones_own_run_is_not_asked_about_in_a_script(world, research):
    """``research train`` of one's config with one's part, then reproduce, train and ablate of what it wrote."""
    folder, _ = world
    (folder / "c.json").write_text(json.dumps(config(external=True)))
    assert research("train", "c.json", "--out", "run")[0] == 0
    assert (folder / "ran").exists()
    for place in ("run", "run/record.json"):
        code, said = research("reproduce", place)
        assert (code, "reproduced exactly" in said) == (0, True)
    assert research("train", "run", "--out", "again")[0] == 0
    assert research("train", "run/config.json", "--out", "again2")[0] == 0
    # What was altered since is not one's own any more.
    changed = json.loads((folder / "run" / "config.json").read_bytes()) | {"latent_size": 3}
    (folder / "run" / "config.json").write_text(json.dumps(changed))
    assert research("train", "run", "--out", "again3")[0] == 2


def test_foreign_record_with_nothing_to_say_trains_unasked(world, research):
    """No bucket, no external part: as ever."""
    folder, _ = world
    assert research("train", "quickstart", "--set", "epochs=1", "--out", "run")[0] == 0
    shutil.rmtree(folder / "cache")
    assert research("reproduce", "run")[0] == 0


def test_named_data_dir_is_no_contact_with_the_records_bucket(world, research):
    """What the user names is what is read."""
    folder, contacted = world
    shutil.move(sweep(folder / "s", external=False, data_dir=BUCKET), folder / "strange")
    _, said = research("reproduce", "strange", "--data-dir", str(folder))
    assert "--trust" not in said
    assert contacted == []
    assert Ledger.open(folder / "s").settings.data_dir == BUCKET


def test_foreign_record_with_a_name_twice_is_read_as_the_verb_reads_it(world, research):
    """No second value hides a part or a bucket."""
    folder, contacted = world
    model = sweep(folder / "s", external=False, data_dir=None)
    text = (model / "record.json").read_text().rstrip().removesuffix("}").rstrip()
    twice = {"config": config(external=True), "data_dir": BUCKET}
    for first in (True, False):
        extra = json.dumps(twice)[1:-1]
        whole = "{" + extra + "," + text.removeprefix("{") + "}" if first else text + "," + extra + "}"
        (folder / "twice.json").write_text(whole)
        code, said = research("reproduce", str(folder / "twice.json"))
        ran = (folder / "ran").exists() or contacted
        assert not ran or code == 0, said
        assert not ran
