"""A part from outside this project, named by the place of its code: ``kind: external``.

The user's class is a config like any other; see the protocol of its group. :class:`External` passes all attributes
through to it. Its module is imported when a config names it, and not before.
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
from vae.durable import read_file
from vae.system.places import working_directories
from vae.system.user_code import UserCodeExit, run_source, user_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

PATH_VARIABLE = "RESEARCH_PATH"  # folders to search after the working directory; workers get the driver's value


_PART = "class {} that is a dataclass"


def _is_part(found: object) -> bool:
    return isinstance(found, type) and dataclasses.is_dataclass(found)


@part
class External:
    """A part by the place of its class.

    ``path`` is ``package.module:Class`` or ``file.py:Class``. ``settings`` are the keyword arguments of the class.
    """

    kind: Literal["external"] = "external"
    path: str
    settings: Annotated[dict[str, JsonValue], Field(default_factory=dict)]

    def __post_init__(self) -> None:
        """Refuse a class that can't be imported or made, while the config is being read."""
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
        _, digest = load(self.path, _is_part, _PART)
        return digest


def external_sources(config: object) -> dict[str, str]:
    """Return the sha256 of the file of every external part in ``config``, by the part's path."""
    found: dict[str, str] = {}
    if getattr(config, "kind", None) == "external" and hasattr(config, "source_sha256"):
        found[config.path] = config.source_sha256  # type: ignore[attr-defined] # an External or an ExternalMetric
    if isinstance(config, tuple):
        for one in config:
            found |= external_sources(one)
    for name in getattr(config, "__dataclass_fields__", ()):
        found |= external_sources(getattr(config, name))
    return found


def named_parts(values: object) -> list[str]:
    """Return the paths of the external parts that the JSON ``values`` of a config name. Nothing is imported."""
    found: dict[str, None] = {}
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("kind") == "external":
                found[str(value.get("path"))] = None
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return sorted(found)


def locate(path: str) -> Path | None:
    """Return the file that would be run for the external part ``path``; None where there is none. Nothing is imported."""
    place, _, _ = path.rpartition(":")
    try:
        return _file_of(place) if place.endswith(".py") else _file_of_module(place)
    except (ValueError, OSError, ImportError):  # no name of a file or module
        return None


def source_of(path: str) -> str | None:
    """Return the sha256 of the file that would be run for the external part ``path``. Nothing is imported."""
    file = locate(path)
    try:
        return None if file is None else hashlib.sha256(read_file(file)).hexdigest()
    except OSError:
        return None


def search_path() -> list[Path]:
    """Return the folders in which external parts are looked for, besides Python's own path."""
    listed = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys([*working_directories(), *(Path(folder) for folder in listed if folder)]))


@lru_cache(maxsize=64)
def _resolve(path: str, settings: str) -> Any:  # noqa: ANN401 - the user's own object
    made_by, _ = load(path, _is_part, _PART)
    try:
        with user_code(f"external part {path!r}"):
            return made_by(**json.loads(settings))
    except UserCodeExit as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"external part {path!r}: {place}: {first['msg']}, got {first['input']!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"external part {path!r} can't be made of settings {settings}: {error}") from None


@lru_cache(maxsize=64)
def load(path: str, allowed: Callable[[object], bool], what: str) -> tuple[Any, str]:
    """Return what ``path`` (``package.module:name`` or ``file.py:name``) names, and the sha256 of its file.

    ``allowed`` says whether it may be used at all, because a config from elsewhere would otherwise be a way to call
    anything; ``what`` describes that, with ``{}`` for the name.

    Raises:
        ValueError: the module can't be imported, or has nothing of this name that is allowed.

    """
    place, colon, name = path.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise ValueError(f"path must be 'package.module:Class' or 'file.py:Class', got {path!r}")
    try:
        with user_code(f"external part {path!r}"):
            module, digest = _file_module(place) if place.endswith(".py") else (_named_module(place), None)
    except UserCodeExit as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - whatever a user's file raises
        line = " ".join(str(error).split())
        raise ValueError(f"external part {path!r} can't be imported: {type(error).__name__}: {line}") from None
    found = getattr(module, name, None)
    if not allowed(found):
        raise ValueError(f"external part {path!r}: {place} has no {what.format(repr(name))}")
    if digest is None:
        try:
            # Hashed now and not when a record is written, because the file may be edited after the import.
            digest = hashlib.sha256(read_file(inspect.getfile(module))).hexdigest()
        except (TypeError, OSError):
            raise ValueError(f"external part {path!r}: {place} has no source file that could be recorded") from None
    return found, digest


def _file_of(place: str) -> Path | None:
    return next((file for folder in search_path() if (file := folder / place).is_file()), None)


def _file_of_module(place: str) -> Path | None:
    """Find a module's file as ``import`` would, without importing the packages that it is in."""
    name, *rest = place.split(".")
    loaded = sys.modules.get(place)
    if loaded is not None and getattr(loaded, "__file__", None) is not None:
        return Path(inspect.getfile(loaded))
    found = _below([*search_path(), *map(Path, sys.path)], [name, *rest])
    if found is not None:
        return found
    spec = importlib.util.find_spec(name)  # what only an import hook finds, e.g. an editable installation
    if spec is None:
        return None
    if rest:
        return _below([Path(folder) for folder in spec.submodule_search_locations or ()], rest)
    return None if spec.origin is None else Path(spec.origin)


def _below(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    name, *rest = names
    for folder in folders:
        package, module = folder / name, folder / f"{name}.py"
        if rest and package.is_dir():
            found = _below([package], rest)
            if found is not None or (package / "__init__.py").is_file():
                return found
        elif (package / "__init__.py").is_file() or module.is_file():
            return package / "__init__.py" if (package / "__init__.py").is_file() else module
    return None


def _file_module(place: str) -> tuple[ModuleType, str]:
    """Run the file ``place``; return its module and the sha256 of what was run."""
    found = _file_of(place)
    if found is None:
        raise FileNotFoundError(f"no such file in {', '.join(str(folder) for folder in search_path())}")
    spec = importlib.util.spec_from_file_location(
        f"_external_{hashlib.sha256(bytes(found.resolve())).hexdigest()[:12]}_{found.stem}", found
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    return module, run_source(module, read_file(found), found)


def _named_module(place: str) -> ModuleType:
    folders = [str(folder) for folder in search_path()]
    sys.path[:0] = folders
    try:
        return importlib.import_module(place)
    finally:
        for folder in folders:
            sys.path.remove(folder)
