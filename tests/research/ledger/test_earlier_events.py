"""Events and settings that gain fields still read the ledgers of earlier versions: a new field has a default."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from research.ledger.events import Event
from research.ledger.records import TrialRecord
from research.ledger.settings import SweepSettings
from tests.support.places import FIXTURES

FIXTURE = FIXTURES / "small-digits"

# The fields that version 0.1.0 always wrote: none may be added here, because its ledgers lack it.
REQUIRED = {
    "SweepCreated": {"settings", "code", "versions", "command"},
    "SessionStarted": {"generation", "pid", "host", "code", "versions", "hardware"},
    "TrialCreated": {"trial", "params", "distributions", "config", "config_hash", "seed", "sampler_seed"},
    "RowReported": {"trial", "epoch", "metrics"},
    "RowsReported": {"trial", "rows"},  # new after 0.1.0
    "DecidedRow": {"epoch", "time", "metrics"},  # new after 0.1.0
    "TrialRetried": {"trial", "attempt", "reason"},
    "TrialFailed": {"trial", "kind", "reason"},
    "Interrupted": {"reason"},
    "SweepExtended": {"trials", "budget"},
    "LearnedTrial": {"trial", "params", "distributions", "complete", "values", "curve"},
    "TrialsLearned": {"name", "identity", "trials"},
    "SweepSettings": {"name", "space", "metric", "trials", "measure", "data_hash", "split_hash"},
    "SpaceSource": {"name", "source", "sha256"},
    "Constraint": {"metric", "relation", "bound"},
    "StartFrom": {"params", "source"},
    "Parent": {"name", "identity"},
    "OptunaSampler": {"name"},
    "Stacked": {"position", "configs", "epochs"},
    "TrialRecord": {
        *("sweep", "trial", "space", "space_sha256", "params", "config", "config_hash", "seed", "status", "reason"),
        *("metric", "best_epoch", "rows", "measure", "data_hash", "split_hash", "data_dir", "code", "versions"),
        *("hardware", "threads", "device"),
    },
}


def holds(value: object, part: object) -> bool:
    """Return True where ``value`` has everything that ``part`` has; objects may have more keys."""
    if isinstance(part, dict) and isinstance(value, dict):
        return all(key in value and holds(value[key], entry) for key, entry in part.items())
    return value == part


def required_fields() -> dict[str, set[str]]:
    """The fields without a default of everything that a ledger or a record holds, by class."""
    found: dict[str, set[str]] = {}
    for adapter in (TypeAdapter(Event), TypeAdapter(SweepSettings), TypeAdapter(TrialRecord)):
        schema = adapter.json_schema()
        for name, node in (schema.get("$defs", {}) | {schema.get("title", ""): schema}).items():
            if node.get("type") == "object":
                found[name] = set(node.get("required", []))
    return found


@pytest.mark.parametrize("name", REQUIRED)
def test_event_requires_no_field_that_version_0_1_0_did_not_write(name):
    """Each class requires at most the fields that earlier ledgers have."""
    assert required_fields()[name] <= REQUIRED[name]


def test_every_recorded_class_with_required_fields_is_pinned():
    """A class that is new has to be added with a default, or to the list above."""
    assert {name for name, fields in required_fields().items() if fields} <= set(REQUIRED)


def test_event_of_an_earlier_ledger_keeps_every_field():
    """Each field that an earlier ledger holds is read as it was written."""
    adapter = TypeAdapter(Event)
    for path in sorted((FIXTURE / "ledger").iterdir()):
        event = json.loads(path.read_text())["event"]
        again = adapter.dump_python(adapter.validate_python(event, strict=False), mode="json")
        assert holds(again, event), path.name
