"""Takes secrets out of text before it is written down or shown.

A secret is what the environment holds under a telling name (``WANDB_API_KEY``, ``AWS_SECRET_ACCESS_KEY``), what
follows such a name on a command line, and the password of a URL. Values are looked for as they are: one that was
encoded on the way is not recognised.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

HIDDEN = "***"
_SHORTEST = 6  # characters: a shorter value would be found everywhere
_TELLING = re.compile(
    r"(api_?key|access_?key|private_?key|auth_?key|token|secret|passw(or)?d|credential)(?!.*(path|file|dir|url)$)",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?<=://)[^/\s?#@'\"]+@")


def redacted(text: str) -> str:
    """``text`` without user names and passwords of URLs, and without the environment's secrets."""
    text = _USER_INFO.sub(f"{HIDDEN}@", text)
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return text


def redacted_command(arguments: list[str]) -> list[str]:
    """A command line the same way, and without what is given to ``--a-telling-name`` or as ``telling_name=VALUE``."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        telling = _is_telling(name)
        if hide and not argument.startswith("--"):
            shown.append(HIDDEN)
        elif telling and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(redacted(argument))
        hide = telling and not equals and argument.startswith("--")
    return shown


def has_user_info(url: str) -> bool:
    """Whether a URL, or a HOST:PORT, carries a user name or a password."""
    return "@" in urlsplit(url if "://" in url else f"//{url}").netloc


def _is_telling(name: str) -> bool:
    return _TELLING.search(name.replace("-", "_")) is not None


def _secrets() -> list[str]:
    """The values to hide, the longest first: one may hold another."""
    values = {value for name, value in os.environ.items() if _is_telling(name)}
    for value in os.environ.values():
        if _USER_INFO.search(value):
            try:
                values.add(urlsplit(value).password or "")
            except ValueError:
                continue  # no URL after all
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)
