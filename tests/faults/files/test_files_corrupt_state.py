"""Every kind of file in a sweep's directory, torn at 0, 50 and 99 % and with a byte flipped: refused, or made again.

Never a silent fresh start, never another number or weight than before.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from research.driver.best_models import keep_best, last_whole
from research.errors import CorruptFile, UserError
from research.experiments import finalists
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.ledger.settings import Parent
from research.models import looks
from research.models.apply import model_folder
from research.search.spaces import load_recorded
from research.search.study import StudyView
from research.store.folders import verify_folder, write_sealed
from research.store.layout import SweepFolder, trial_name
from research.store.lock import SweepLock, holder_of
from research.tracking.trial_runs import Marks
from research.views.show import as_json, glance
from tests.support.synthetic import new_ledger, row, session, trial
from vae.portable import load_model
from vae.serialization import from_dict
from vae.state import TrainState, capture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = "11 corrupt state"
QUESTION = {"measure": "m"}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: content[:0],
    "half": lambda content: content[: len(content) // 2],
    "99 %": lambda content: content[: min(len(content) - 1, len(content) * 99 // 100)],
    "flip": lambda content: (
        content[: len(content) // 3] + bytes([content[len(content) // 3] ^ 4]) + content[len(content) // 3 + 1 :]
    ),
}


def checkpoint(ledger: Ledger, number: int, epoch: int) -> dict[str, Any]:
    """A real state of the trial's own model; what its row says of it."""
    from vae.model import VAE

    config = from_dict(ledger.trials[number].created.config)
    torch.manual_seed(epoch)
    model = VAE(config, shape=(1, 8, 8), levels=16, num_classes=10)
    state = capture(
        config_hash="", epoch=epoch, step=epoch, model=model, optimizer=torch.optim.Adam(model.parameters()), ema=None
    )
    place = f"trials/{trial_name(number)}/epoch-{epoch:04d}-0"
    return {"checkpoint": place, "checkpoint_sha256": state.save(ledger.directory / place)}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A sweep with a file of every kind: two trials ended, one running, finalists, looks, marks, a report."""
    place = tmp_path_factory.mktemp("state") / "sweep"
    ledger = new_ledger(place)
    for number in range(3):
        ledger.append(trial(number, params={"n": number}, distributions={"n": NUMBER}))
        for epoch in (1, 2, 3)[: 2 if number == 2 else 3]:
            saved = checkpoint(ledger, number, epoch)
            ledger.append(row(number, epoch, -30.0 + epoch - number, "complete" if epoch == 3 else "continue", **saved))
    assert keep_best(ledger, place) == []
    (place / "space.py").write_text(ledger.settings.space.source)
    (place / "code-0.diff").write_text("--- a\n+++ b\n" * 20)
    (place / "report.html").write_text("<html>" * 100)
    (place / "pictures").mkdir()
    (place / "pictures" / "a.png").write_bytes(bytes(range(200)))
    StudyView(ledger, place / "study.journal").add(ledger.trials[0], ended=True)
    looks.write_look(place / "models" / "trial-0000", QUESTION, {"test/elbo": -12.5}, "why")
    Marks(SweepFolder(place)).write("trial-0000", rows=3)
    with SweepLock(place):
        pass
    (place / "lock").write_text('{"pid": 1, "host": "there", "time": "then"}')
    again = new_ledger(place / "finalists", parent=Parent(name="s", identity=ledger.identity))
    again.append(trial(0, parent_trial=0))
    again.append(row(0, 1, -28.0, "complete"))
    write_sealed(place / "finalists" / "test.json", {"parent_trial": 0, "value": 1.25})
    return place


NUMBER = '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 9}}'


def readings(place: Path) -> dict[str, Any]:
    """What each reader of the directory makes of it: a value, or the refusal."""
    found: dict[str, Any] = {}

    def read(name: str, reader: Callable[[], Any]) -> None:
        try:
            found[name] = reader()
        except UserError as refusal:
            found[name] = refusal

    def opened() -> Ledger:
        return Ledger.open(place)

    read("ledger", lambda: repr(sorted(opened().trials.items())))
    if isinstance(found["ledger"], UserError):
        return found
    ledger = opened()
    read("shown", lambda: json.dumps(as_json(ledger)))
    read("finalists", lambda: finalists.results(ledger))
    if not isinstance(found["finalists"], UserError):
        read("glance", lambda: len(glance(ledger).renderables))
    read("space", lambda: load_recorded(ledger.settings.space, place / "space.py").source)
    read("continued", lambda: last_whole(place, ledger.trials[2], 1))
    read("look", lambda: looks.earlier_look(place / "models" / "trial-0000", QUESTION))
    read("mark", lambda: Marks(SweepFolder(place)).read("trial-0000"))
    read("holder", lambda: holder_of(place))
    for number in (0, 1):
        folder = place / "models" / trial_name(number)
        read(f"model {number}", lambda folder=folder: [t.tolist() for t in weights(folder)])
        read(f"record {number}", lambda folder=folder: load_record(folder))
    read("study", lambda: [t.values for t in rebuilt(ledger).study.get_trials()])
    with SweepLock(place):
        found["kept"] = keep_best(ledger, place)
    return found


def weights(folder: Path) -> list[torch.Tensor]:
    """Of the model in ``folder``, as every verb reads it."""
    _, model = load_model(model_folder(folder))
    return list(model.state_dict().values())


def rebuilt(ledger: Ledger) -> StudyView:
    """As a session does it."""
    view = StudyView(ledger, ledger.directory / "study.journal")
    for number in sorted(ledger.trials):
        view.add(ledger.trials[number], ended=True)
    return view


def kinds() -> dict[str, str]:
    """Each kind of file: the file, and what has to become of it."""
    model, state = "models/trial-0000", "trials/trial-0002/epoch-0002-0"
    return {
        "ledger/00000000.json": "refused",
        "ledger/00000001.json": "refused",
        "ledger/00000004.json": "refused",
        "ledger/00000012.json": "refused",  # the last
        "finalists/ledger/00000002.json": "refused",
        "finalists/test.json": "refused",
        f"looks/{looks.identity(QUESTION)}.json": "refused",
        "space.py": "refused",
        **{
            f"{model}/{name}": "refused" for name in ("config.json", "model.safetensors", "metrics.json", "record.json")
        },
        **{f"{model}/{name}": "refused" for name in ("README.md", "manifest.json")},
        f"{state}/state.safetensors": "passed over",
        f"{state}/state.json": "passed over",
        "study.journal": "view",
        "wandb/finished/trial-0000.json": "marked anew",
        "lock": "view",
        "code-0.diff": "view",
        "report.html": "view",
        "pictures/a.png": "view",
        "latest-event.json": "view",  # damaged, it says nothing about the ledger's length
    }


def test_every_kind_of_file_is_named_here(pristine):
    """What a sweep writes and this module forgot would be found here."""
    seen = {str(path.relative_to(pristine)) for path in pristine.rglob("*") if path.is_file()}
    named = set(kinds())
    alike = (
        "ledger/",
        "finalists/ledger/",
        "models/trial-0001/",
        "trials/trial-0002/",
        "models/trial-0000/",
        "study.journal",
    )
    assert named <= seen, named - seen
    assert {name for name in seen - named if not name.startswith(alike)} <= {
        "finalists/lock",
        "finalists/latest-event.json",
    }


@pytest.mark.fault(STATE)
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", kinds())
def test_a_damaged_file_is_refused_by_name_or_made_again(pristine, tmp_path, tally, file, damage):
    """Each reader says what it said before, or refuses in one line with the file's path."""
    place, becomes = tmp_path / "sweep", kinds()[file]
    shutil.copytree(pristine, place)
    expected = readings(place)
    assert not [name for name, value in expected.items() if isinstance(value, UserError)], "all is well before"
    path = place / file
    content = (pristine / file).read_bytes()
    path.write_bytes(DAMAGE[damage](content))
    assert path.read_bytes() != content
    tally.happened()
    found = readings(place)
    refusals = {name: value for name, value in found.items() if isinstance(value, UserError)}
    assert not [value for value in refusals.values() if "\n" in str(value)]
    match becomes:
        case "refused":
            assert refusals, "it was read as if nothing had happened"
            assert all(str(path) in str(value) or file.endswith("manifest.json") for value in refusals.values())
            if file.startswith("models"):
                assert any("model of trial 0 could not be kept" in line for line in found["kept"])
                found["kept"] = []
        case "passed over":
            assert not refusals
            continued, (problem,) = found["continued"]
            assert str(path.parent) in problem
            assert continued.epoch == 1
            found["continued"] = expected["continued"]
        case "marked anew":
            assert not refusals
            assert found["mark"] in (None, expected["mark"]) or damage == "flip"
            found["mark"] = expected["mark"]
        case "view":
            assert not refusals
    changed = {name for name, value in found.items() if name not in refusals and value != expected[name]}
    tally.losing(len(changed))


@pytest.mark.fault(STATE)
def test_a_missing_event_is_refused_and_none_is_skipped(pristine, tmp_path, tally):
    """Any but the last: the gap is named. Without the last the ledger is what it was before."""
    count = len(Ledger.open(pristine))
    for number in range(count - 1):
        place = tmp_path / str(number)
        shutil.copytree(pristine / "ledger", place / "ledger")
        (place / "ledger" / f"{number:08d}.json").unlink()
        tally.happened()
        with pytest.raises(CorruptFile, match=f"{number:08d}.json"):
            Ledger.open(place)


@pytest.mark.fault("18 kept model damaged")
def test_a_kept_model_that_is_damaged_is_made_again_while_its_checkpoint_is_there(tmp_path, tally):
    """In a sweep that runs and at the next session; without the checkpoint it is reported, and left for the evidence."""
    ledger = new_ledger(tmp_path, keep=1)
    ledger.append(trial(0))
    saved = checkpoint(ledger, 0, 1)
    ledger.append(row(0, 1, -30.0, "complete", **saved))
    shutil.copytree(tmp_path / "trials", tmp_path / "aside")
    assert keep_best(ledger, tmp_path) == []
    folder = tmp_path / "models" / "trial-0000"
    good, before = verify_folder(folder), weights(folder)
    for name in good:
        for damage in DAMAGE.values():
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(damage(content))
            tally.happened()
            (problem,) = keep_best(ledger, tmp_path)
            assert "the model of trial 0 could not be kept" in problem
            with pytest.raises(CorruptFile):
                weights(folder)
            shutil.copytree(tmp_path / "aside", tmp_path / "trials", dirs_exist_ok=True)
            ledger.append(session(len(ledger.sessions)))
            assert keep_best(Ledger.open(tmp_path), tmp_path) == []
            assert verify_folder(folder).keys() == good.keys()
            assert all(torch.equal(one, other) for one, other in zip(weights(folder), before, strict=True))


@pytest.mark.fault("12 corrupt checkpoint")
def test_a_whole_checkpoint_of_another_run_is_not_continued_from(pristine, tmp_path, tally):
    """Every hash in the folder fits, but it is not the one that the row names."""
    place = tmp_path / "sweep"
    shutil.copytree(pristine, place)
    folder = place / "trials" / "trial-0002"
    shutil.rmtree(folder / "epoch-0002-0")
    shutil.copytree(folder / "epoch-0001-0", folder / "epoch-0002-0")
    assert TrainState.load(folder / "epoch-0002-0").epoch == 1
    tally.happened()
    continued, (problem,) = last_whole(place, Ledger.open(place).trials[2], 1)
    assert continued.epoch == 1
    assert "its sha256 is not the ledger's" in problem
