"""A part that lives outside this project, named by where it is: ``kind: external``.

The user's class is a config like any other (see the protocol at the top of the group's ``__init__``); everything
that is asked of this one is answered by that. Its module is imported when it is named and not before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError

from vae.config import part
from vae.places import working_directories

if TYPE_CHECKING:
    from types import ModuleType

PATH_VARIABLE = "RESEARCH_PATH"  # folders to look in, after the working directory; workers get the driver's


@part
class External:
    """``path``: ``package.module:Class`` or ``file.py:Class``; ``settings``: the keyword arguments of the class."""

    kind: Literal["external"] = "external"
    path: str
    settings: Annotated[dict[str, JsonValue], Field(default_factory=dict)]

    def __post_init__(self) -> None:
        """Refuse what can't be imported or made, while the config is being read."""
        self._part()

    def __hash__(self) -> int:
        return hash((self.path, json.dumps(self.settings, sort_keys=True)))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the user's class has
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._part(), name)

    def _part(self) -> Any:  # noqa: ANN401 - the user's own object
        return _resolve(self.path, json.dumps(self.settings, sort_keys=True))

    @property
    def source_sha256(self) -> str:
        """Sha256 of the file that the class was read from, as it was then."""
        _, digest = _load(self.path)
        return digest


def external_sources(config: object) -> dict[str, str]:
    """The sha256 of every external part's file in ``config``, by the part's path."""
    found: dict[str, str] = {}
    if isinstance(config, External):
        found[config.path] = config.source_sha256
    for name in getattr(config, "__dataclass_fields__", ()):
        found |= external_sources(getattr(config, name))
    return found


def search_path() -> list[Path]:
    """Where modules and files of external parts are looked for, besides Python's own path."""
    listed = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys([*working_directories(), *(Path(folder) for folder in listed if folder)]))


@lru_cache(maxsize=64)
def _resolve(path: str, settings: str) -> Any:  # noqa: ANN401 - the user's own object
    made_by, _ = _load(path)
    try:
        return made_by(**json.loads(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"external part {path!r}: {place}: {first['msg']}, got {first['input']!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"external part {path!r} can't be made of settings {settings}: {error}") from None


@lru_cache(maxsize=64)
def _load(path: str) -> tuple[Any, str]:
    place, colon, name = path.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise ValueError(f"path must be 'package.module:Class' or 'file.py:Class', got {path!r}")
    try:
        module = _file_module(place) if place.endswith(".py") else _named_module(place)
    except Exception as error:  # noqa: BLE001 - whatever a user's file raises
        line = " ".join(str(error).split())
        raise ValueError(f"external part {path!r} can't be imported: {type(error).__name__}: {line}") from None
    made_by = getattr(module, name, None)
    # Not whatever can be called: a config that somebody sent would else be a way to call it.
    if not (isinstance(made_by, type) and dataclasses.is_dataclass(made_by)):
        raise ValueError(f"external part {path!r}: {place} has no class {name!r} that is a dataclass")
    try:
        # Now and not when a record asks: the file may be edited while what was imported stays.
        digest = hashlib.sha256(Path(inspect.getfile(module)).read_bytes()).hexdigest()
    except (TypeError, OSError):
        raise ValueError(f"external part {path!r}: {place} has no source file that could be recorded") from None
    return made_by, digest


def _file_module(place: str) -> ModuleType:
    candidates = [folder / place for folder in search_path()]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no such file in {', '.join(str(folder) for folder in search_path())}")
    spec = importlib.util.spec_from_file_location(
        f"_external_{hashlib.sha256(bytes(found.resolve())).hexdigest()[:12]}_{found.stem}", found
    )
    assert spec is not None
    assert spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _named_module(place: str) -> ModuleType:
    folders = [str(folder) for folder in search_path()]
    sys.path[:0] = folders
    try:
        return importlib.import_module(place)
    finally:
        for folder in folders:
            sys.path.remove(folder)
