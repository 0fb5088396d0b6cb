"""Which labels of a data set are the anomalous ones: said by the user, or by the data themselves."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from research.errors import UserError
from vae.data import Arrays
from vae.data.labels import label_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.data import Split
    from vae.train_config import TrainConfig

_DIGITS = 9  # of a number that is taken as one


def anomalies(
    config: TrainConfig, split: Split, classes: int, asked: Sequence[str] | None, *, needed: bool = True
) -> list[int]:
    """Return the numbers of the labels that are anomalous: those ``asked`` for, or those that the data call so.

    The data call anomalous all labels but the one that was trained on, 1 of labels 0 and 1, and "true" of "false" and
    "true". Of two labels with other names nobody can say; ``needed`` refuses them.

    Raises:
        UserError: which of two names is anomalous has to be said.
        DataError: there is no such label.

    """
    names = split.label_names
    if asked:
        # Without names a number is taken as it is: one that no example has is refused with the figures.
        said = [as_recorded(label) for label in asked]
        return sorted(
            {
                label
                if isinstance(label, int) and not names
                else label_number(label, names, classes, "--anomaly-label")
                for label in said
            }
        )
    present = split.labels.unique().tolist()
    if isinstance(config.data, Arrays) and config.data.train_label is not None:
        normal = config.data.trained_number(names, classes)
        return [label for label in present if label != normal]
    if not names:
        return [1] if present == [0, 1] else []
    if [name.casefold() for name in names] == ["false", "true"]:
        return [1]
    if needed and len(names) == 2 and not all(name.isdigit() for name in names):  # noqa: PLR2004 - one is the anomaly
        raise UserError(
            f"the labels are {names[0]!r} and {names[1]!r}: say which is anomalous, e.g. --anomaly-label {shlex.quote(names[0])}"
        )
    return []


def as_recorded(label: str) -> int | str:
    """Return a label as looks at test record it: a number as a number, as in version 0.1.0."""
    return int(label) if label.isdecimal() and len(label) <= _DIGITS and str(int(label)) == label else label
