"""Ways to damage a file: bytes flipped, cut, put in, overwritten; and of JSON, values put where others belong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

INTERESTING = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\n",
    b'"',
    b"{",
    b"]",
    b"../",
    b"\xed\xa0\x80",
    b"1e999",
    b"NaN",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    -(2**63) - 1,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "1e-3",
    "../../escaped",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 300,
    [],
    [[]],
    {},
    {"kind": "external", "path": "os:system"},
    {"kind": "nothing"},
    [1, "two", None],
)


def damaged(content: bytes, random: random.Random) -> bytes:
    """``content`` with one to four random changes."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(changed) + 1)
        match random.randrange(6):
            case 0 if place < len(changed):
                changed[place] ^= 1 << random.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + random.randint(1, 64)]
            case 3:
                changed[place:place] = random.choice(INTERESTING)
            case 4:
                replacement = random.choice(INTERESTING)
                changed[place : place + len(replacement)] = replacement
            case _:
                start = random.randrange(len(changed) + 1)
                changed[place:place] = changed[start : start + random.randint(1, 256)]
    return bytes(changed)


def damaged_json(content: bytes, random: random.Random) -> bytes:
    """JSON still, but a value replaced, a key lost, renamed, added or doubled, or all of it nested deep."""
    value = json.loads(content)
    places = list(_places(value))
    for _ in range(random.randint(1, 3)):
        if not places:
            break
        parent, key = random.choice(places)
        try:
            match random.randrange(5):
                case 0:
                    parent[key] = random.choice(VALUES)
                case 1:
                    del parent[key]
                case 2 if isinstance(parent, dict):
                    parent[f"{key}s"] = parent.pop(key)
                case 3 if isinstance(parent, dict):
                    parent[str(random.choice(VALUES))] = random.choice(VALUES)
                case _:
                    other, name = random.choice(places)
                    parent[key] = json.loads(json.dumps(other[name]))
        except (KeyError, IndexError, ValueError):  # an earlier change took it away
            continue
    text = json.dumps(value, sort_keys=True)
    match random.randrange(12):
        case 0:
            text = text.replace('": ', f'": {"[" * 3000}', 1)
        case 1:
            text = text.replace("{", '{"seed": 1, "seed": 2, ', 1)
        case 2:
            text = text.replace("1", "1" * 5000, 1)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
