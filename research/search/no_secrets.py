"""Refuses a secret in what a sweep records word for word: its space's source, its settings, its configs.

Those can't be redacted: a config that differs from the one that was trained repeats nothing, and the space's source is
compared by its hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.errors import UserError
from research.redaction import secret_in, secrets_of

if TYPE_CHECKING:
    from research.ledger.settings import SpaceSource, SweepSettings

_REMEDY = "it would be recorded with the sweep: let the code that needs it read it from the environment or from a file"


def refuse_in_source(source: SpaceSource) -> None:
    """Refuse a space whose source holds a secret. The line is named, the value is not.

    Raises:
        UserError: with the number of the line and the kind of the secret.

    """
    if (kind := secret_in(source.source)) is None:
        return
    lines = source.source.splitlines()
    number = next((number for number, line in enumerate(lines, 1) if secret_in(line) is not None), None)
    where = "" if number is None else f" in line {number}"
    raise UserError(f"space {source.name!r} holds {kind}{where}, and {_REMEDY}")


def refuse_in(what: str, value: object) -> None:
    """Refuse a JSON value, such as a config or the settings, that holds a secret.

    Raises:
        UserError: with the path of the value and the kind of the secret.

    """
    if (found := why_not(what, value)) is not None:
        raise UserError(found)


def refuse_in_settings(settings: SweepSettings) -> None:
    """Refuse a sweep whose names, paths or first parameters hold a secret.

    Raises:
        UserError: with the setting and the kind of the secret.

    """
    named = {"SPACE": settings.space.name, "--name": settings.name, "--data-dir": settings.data_dir}
    named |= {"--data": settings.data, "--wandb-project": settings.wandb_project}
    starts = [{"source": start.source, "params": start.params} for start in settings.start_from]
    refuse_in("the command", {**named, "--start-from": starts})


def why_not(what: str, value: object) -> str | None:
    """Return the line that refuses ``value``, or None where it holds no secret."""
    for path, kind in secrets_of(value):
        return f"{what} holds {kind} at {path or 'its top'}, and {_REMEDY}"
    return None
