"""Redacts secrets in text before it is stored or shown, and finds those that must not be stored at all.

A secret is a value that the environment holds under a telling name (``WANDB_API_KEY``, ``DB_PASS``), a value given to
such a name on a command line or in an assignment, the user and password of a URL, and anything that has the form of a
known token. An environment's value is also recognised where it was escaped, quoted for a URL or put on one line; one
that was encoded in another way is not.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from research.secret_rules import is_suspicious, is_telling, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = "***"
_SHORTEST = 6  # characters: a shorter value would be found everywhere
_SHORTEST_REFUSED = 8  # a value that is refused, not only hidden, must certainly be a secret
_LONGEST_USER = 16  # a longer user name without a password is usually a token
_URL = re.compile(r"(?<=://)[^\s'\"<>`|\\]+")
_PORT = re.compile(r"[^:]*:\d{1,5}(?:[/?#]|$)")
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|localhost|\[[0-9a-fA-F:]+\])(?::\d+)?(?:[/?#,;:)\]]|$)|[\w.-]+:\d+")
_QUERY = re.compile(r"([?&;]([\w.~-]+)=)([^&#\s'\"<>,;)]+)")
_SIGNED = re.compile(r"(?:sig|signature|X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|code)$", re.IGNORECASE)
# name = "value" and "name": "value"; without quotes only name=value.
_QUOTED = re.compile(
    r"(?<![\w.-])([\w.-]{1,80})(\\?[\"']?\]?\s*(?::|=|:=|=>)\s*[rbfu]?)(\\?[\"'])((?:(?!\3)[^\n\\]){4,}?)\3"
)
_BARE = re.compile(r"(?<![\w.?&;-])([\w.-]{1,80})(=)([^\s'\",;&)\]}]{4,})")
# Placeholders for a password in documentation.
_EXAMPLE = re.compile(r"(?i)pass(word)?|pw|pwd|secret|token|key|x+|\*+|\.+|[$%{<].*")
_HEADER = re.compile(r"(?i)\b((?:bearer|basic)\s+)([\w.~+/=-]{12,})")


def redacted(text: str) -> str:
    """Return ``text`` without users and passwords of URLs, the environment's secrets, assignments and known tokens."""
    text = _URL.sub(lambda match: _without_user(match[0]), text)
    for _, value in _secrets():
        text = text.replace(value, HIDDEN)
    for _, token in sorted(tokens(text), key=lambda found: -len(found[1])):
        text = text.replace(token, HIDDEN)
    text = _HEADER.sub(lambda match: match[1] + (HIDDEN if _mixed(match[2]) else match[2]), text)
    text = _QUERY.sub(lambda match: match[1] + (HIDDEN if _hides(match[2]) else match[3]), text)
    text = _QUOTED.sub(_without_quoted, text)
    return _BARE.sub(lambda match: match[0] if not _assigned(match[1], match[3]) else f"{match[1]}={HIDDEN}", text)


def redacted_command(arguments: list[str]) -> list[str]:
    """Return a redacted command line, also without values of ``--a-telling-name`` and ``telling_name=VALUE``."""
    shown: list[str] = []
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if option and not argument.startswith("--") and is_suspicious(option, argument):
            shown.append(HIDDEN)
        elif equals and "://" not in name and " " not in name and is_suspicious(name, value):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(redacted(argument))
        option = name if argument.startswith("--") and not equals else ""
    return shown


def secret_in(text: str) -> str | None:
    """Return the kind of a secret that ``text`` certainly holds, or None. Used where text is refused, not redacted.

    Values that a person may well choose by chance are not refused: an assignment to a telling name, and an
    environment's value that is short or a plain word.
    """
    for match in _URL.finditer(text):
        password = _user_info(match[0]).partition(":")[2]
        if password and _EXAMPLE.fullmatch(password) is None:
            return "the password of a URL"
    for match in _QUERY.finditer(text):
        if _SIGNED.fullmatch(match[2]) and len(match[3]) >= _LONGEST_USER:
            return "the signature of a URL"
    for name, value in _secrets():
        if len(value) >= _SHORTEST_REFUSED and not (value.isalpha() and value.islower()) and value in text:
            return f"the value of {name}"
    return next((f"a token ({kind})" for kind, _ in tokens(text)), None)


def secrets_of(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each text inside of a JSON value that holds a secret, and the kind of that secret."""
    if isinstance(value, str):
        if (kind := secret_in(value)) is not None:
            yield path, kind
    elif isinstance(value, dict):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if isinstance(inner, str) and len(inner) >= _SHORTEST_REFUSED and is_telling(str(name)) and _mixed(inner):
                yield where, "the value of a telling name"
            else:
                yield from secrets_of(inner, where)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from secrets_of(inner, f"{path}[{index}]")


def has_user_info(url: str) -> bool:
    """Return True if a URL, or a HOST:PORT, carries a user name or a password."""
    rest = url.partition("://")[2] if "://" in url else url
    return _without_user(rest) != rest


def _without_user(rest: str) -> str:
    """Return the part after ``://`` without user and password: ``me:p@ss@host/x`` -> ``***@host/x``."""
    user = _user_info(rest)
    return f"{HIDDEN}{rest[len(user) :]}" if rest[len(user) : len(user) + 1] == "@" else rest


def _user_info(rest: str) -> str:
    """Return user and password, or "" if there is no user: ``me:p@ss@host/x`` -> ``me:p@ss``."""
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    cut = rest.rfind("@", 0, end)
    if ":" in rest[:end] and _PORT.match(rest) is None:
        # An unquoted / or ? in a password ends the search early, so take the last @ that a host follows.
        later = [at for at, letter in enumerate(rest) if letter == "@" and at > end and _HOST.match(rest, at + 1)]
        if later and (cut < 0 or _HOST.match(rest, cut + 1) is None):
            cut = later[-1]
    return rest[: max(cut, 0)]


def _hides(name: str) -> bool:
    return is_telling(name) or _SIGNED.fullmatch(name) is not None


def _without_quoted(match: re.Match[str]) -> str:
    name, between, mark, value = match.groups()
    return match[0] if not _assigned(name, value) else f"{name}{between}{mark}{HIDDEN}{mark}"


def _assigned(name: str, value: str) -> bool:
    """Return True if ``value`` is a secret that is assigned to ``name`` in a text: code and messages have many names."""
    return HIDDEN not in value and is_telling(name) and _mixed(value)


def _mixed(value: str) -> bool:
    """Return True if ``value`` has digits or signs among its letters, unlike words and names in code."""
    return len(value) >= _SHORTEST and (
        any(letter.isdigit() for letter in value)
        or any(not (letter.isalnum() or letter in "_.-/ ()[]{}") for letter in value)
    )


def _secrets() -> list[tuple[str, str]]:
    """Return the environment's secrets with their names, the longest first, because one may contain another."""
    return list(_secrets_of(tuple(os.environ.items())))


@lru_cache(maxsize=4)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name, value in environment:
        if is_suspicious(name, value) and not _is_path(value):
            found.setdefault(value, name)
        for match in _URL.finditer(value):
            user, colon, password = _user_info(match[0]).partition(":")
            if colon:
                found.setdefault(password, name)
            elif len(user) >= _LONGEST_USER:
                found.setdefault(user, name)
    forms = {form: name for value, name in found.items() for form in _forms(value) if len(form) >= _SHORTEST}
    return tuple((name, form) for form, name in sorted(forms.items(), key=lambda one: -len(one[0])))


def _forms(value: str) -> set[str]:
    """Return the spellings of a value in messages and files: plain, unquoted, quoted, escaped, on one line."""
    bare = value.strip()
    return {bare, unquote(bare), quote(bare, safe=""), json.dumps(bare)[1:-1], repr(bare)[1:-1], " ".join(bare.split())}


def _is_path(value: str) -> bool:
    """Return True if the value is an existing path. A path to a secret is not a secret."""
    return value.startswith(("/", "~", "./", "../")) and os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111
