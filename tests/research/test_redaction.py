"""Secrets are taken out of what is recorded and shown: by their value, by their name, and out of URLs."""

from __future__ import annotations

import pytest

from research.errors import UserError
from research.ledger.events import SweepCreated, TrialFailed
from research.planning.preflight import check_address
from research.redaction import redacted, redacted_command
from research.tracking.sink import unreachable

CANARY = "canary-5f0e7d"


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "MY_SECRET", "GOOGLE_CREDENTIALS"]
)
def test_the_value_of_a_telling_variable_is_hidden_wherever_it_stands(monkeypatch, name):
    """Once, twice, inside a word; what surrounds it stays."""
    monkeypatch.setenv(name, CANARY)
    assert redacted(f"key={CANARY}&x {CANARY}") == "key=***&x ***"


@pytest.mark.parametrize("name", ["PATH", "RAY_AUTH_TOKEN_PATH", "SECRETS_FILE", "KEYBOARD"])
def test_other_variables_are_not_secrets(monkeypatch, name):
    """A path to a secret is none."""
    monkeypatch.setenv(name, "/somewhere/else")
    assert redacted("at /somewhere/else") == "at /somewhere/else"


def test_short_values_are_left_alone(monkeypatch):
    """A token of one letter would be found in every word."""
    monkeypatch.setenv("MY_TOKEN", "a")
    assert redacted("a banana") == "a banana"


def test_urls_lose_their_user(monkeypatch):
    """User name and password go, the host stays; the password also where it stands alone."""
    monkeypatch.setenv("WANDB_BASE_URL", f"https://me:{CANARY}@wandb.example:8080/x")
    assert redacted(f"at https://me:{CANARY}@wandb.example:8080/x, {CANARY}") == (
        "at https://***@wandb.example:8080/x, ***"
    )
    assert redacted("see https://wandb.example/@me, mail me@example.org") == (
        "see https://wandb.example/@me, mail me@example.org"
    )


def test_a_command_line_loses_what_is_given_to_a_telling_name(monkeypatch):
    """As ``--name VALUE``, ``--name=VALUE``, ``name=VALUE`` and by value; nothing else changes."""
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    given = [
        "research",
        "sweep",
        "space.py",
        "--api-key",
        "x1",
        "--token=x2",
        "--set",
        "secret=x3",
        "--seed",
        "3",
        f"a={CANARY}",
    ]
    shown = [
        "research",
        "sweep",
        "space.py",
        "--api-key",
        "***",
        "--token=***",
        "--set",
        "secret=***",
        "--seed",
        "3",
        "a=***",
    ]
    assert redacted_command(given) == shown
    assert redacted_command(["--password", "--seed", "3"]) == ["--password", "--seed", "3"]


@pytest.mark.fault("23 secrets")
def test_an_event_can_not_hold_a_secret(monkeypatch, tally):
    """Command, reason and traceback are redacted as the event is made: no writer can forget it."""
    from tests.support.synthetic import sweep

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    failed = TrialFailed(trial=0, kind="bug", reason=f"no {CANARY}", detail=f"Traceback\n{CANARY}")
    assert (failed.reason, failed.detail) == ("no ***", "Traceback\n***")
    began = sweep()
    assert SweepCreated(
        settings=began.settings, code=began.code, versions={}, command=["research", f"--x=https://u:{CANARY}@h"]
    ).command == ["research", "--x=https://***@h"]
    tally.happened(2)


@pytest.mark.fault("23 secrets")
def test_an_address_with_a_password_is_refused(tally):
    """Ray would pass it on to other processes' command lines; the line does not repeat it."""
    for address in (f"me:{CANARY}@127.0.0.1:6379", f"ray://me:{CANARY}@127.0.0.1:10001"):
        with pytest.raises(UserError, match="without a user name or password") as caught:
            check_address(address)
        assert CANARY not in str(caught.value)
        tally.happened()


@pytest.mark.fault("23 secrets")
def test_a_wandb_url_with_a_password_is_not_given_to_wandb(monkeypatch, tally):
    """One line, with the remedy and without the password."""
    monkeypatch.setenv("WANDB_BASE_URL", f"https://me:{CANARY}@127.0.0.1:1")
    reason = unreachable()
    assert reason is not None
    assert "WANDB_BASE_URL" in reason
    assert CANARY not in reason
    tally.happened()
