"""The page's Jinja2 templates, and the one environment that renders them."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from research.text import visible


def _shown(value: object) -> object:
    """Return text with its control characters written out. Markup comes from our own macros and stays as it is."""
    return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breakable(name: str) -> list[str]:
    """Return the parts of a name between which a line may break: each ends after ``/`` or ``_``."""
    return re.split(r"(?<=[/_])", name)


_environment = Environment(
    loader=PackageLoader(__name__, "."),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["breakable"] = _breakable


def render(template: str, **values: object) -> str:
    """Return the HTML of a template in this folder.

    Every value that is text is escaped, and its control characters are written out.

    Raises:
        jinja2.UndefinedError: the template needs a value that was not given.

    """
    return _environment.get_template(template).render(**values)
