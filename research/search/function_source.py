"""The source of a space that is a function of a script or a notebook, as a file that stands by itself.

A sweep records the source of its space, so that it can be resumed from a command line and read years later. For a
function this means: its own source, the sources of the functions and classes beside it that it uses, imports of what
comes from modules, and the values of the names that it uses. Values must be JSON, or parts of a config.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import hashlib
import inspect
import math
import symtable
import sys
import textwrap
from functools import cache
from importlib.metadata import packages_distributions
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from research.errors import UserError
from research.ledger.settings import SpaceSource
from research.search.spaces import Space, run_recorded

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = ("vae", "research", "search_spaces")
_OWN = object()  # stands for a value that is not there


def space_of_function(function: Callable[..., object]) -> Space:
    """Return the space of ``function``, whose recorded source runs from here on.

    Raises:
        UserError: the source can't be had, or uses a value that can't be recorded.

    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise UserError(
            f"space must be a name, a path or a function that was written with def, got {_called(function)}: wrap it in a def"
        )
    text = _Recorder(function).text()
    source = SpaceSource(name=function.__name__, source=text, sha256=hashlib.sha256(text.encode()).hexdigest())
    return Space(function=run_recorded(source), source=source)


class _Recorder:
    """Collects the definitions that a function needs, each once."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.imports: dict[str, str] = {}  # by the name that is bound
        self.definitions: dict[str, str] = {}
        self.values: dict[str, object] = {}

    def text(self) -> str:
        """Return the source of a module with a function ``space``."""
        name = self.function.__name__
        self._define(name, self.function)
        parts = ["from __future__ import annotations"]
        if self.imports:
            parts.append("\n".join(sorted(set(self.imports.values()))))
        parts += [*self.definitions.values()]
        if name != "space":
            parts.append(f"space = {name}")
        return "\n\n".join(parts) + "\n"

    def _define(self, name: str, thing: FunctionType | type) -> None:
        """Record a function or class, after everything that its source names."""
        if self.values.setdefault(name, thing) is not thing:
            raise self._refused(name, "stands for two different things")
        if name in self.definitions:
            return
        source = _source_of(thing, self.function.__name__)
        if isinstance(thing, FunctionType):
            source = self._with_defaults(name, source, thing)
        self.definitions[name] = ""  # a function may name itself
        for used in _names_in(source):
            self._record(used, _value_of(used, thing))
        del self.definitions[name]  # to stand after what it needs
        self.definitions[name] = source

    def _with_defaults(self, name: str, source: str, function: FunctionType) -> str:
        """Return ``source`` with the values of its defaults: they were evaluated where the function was defined."""
        made = inspect.unwrap(function)
        assert isinstance(made, FunctionType)
        arguments = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)).args
        keyword = made.__kwdefaults__ or {}
        found: list[tuple[ast.expr, object]] = list(zip(arguments.defaults, made.__defaults__ or (), strict=True))
        found += [
            (node, keyword[one.arg])
            for one, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if node
        ]
        lines = source.splitlines(keepends=True)
        for node, value in sorted(found, key=lambda one: (one[0].lineno, one[0].col_offset), reverse=True):
            assert node.end_lineno is not None
            # Columns are counted in bytes.
            before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
            after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            lines[node.lineno - 1 : node.end_lineno] = [before + self._literal(name, value) + after]
        return "".join(lines)

    def _record(self, name: str, value: object) -> None:
        if value is _OWN or (hasattr(builtins, name) and getattr(builtins, name) is value):
            return
        if isinstance(value, ModuleType):
            if not _installed(value.__name__):
                raise self._refused(name, "is a module of no installed package")
            self._import(name, f"import {value.__name__} as {name}" if name != value.__name__ else f"import {name}")
        elif (module := _module_of(value)) is not None:
            theirs = str(getattr(value, "__qualname__", name))
            self._import(name, f"from {module} import {theirs}" + ("" if theirs == name else f" as {name}"))
        elif isinstance(value, FunctionType | type):
            self._define(name, value)
        elif name not in self.definitions:
            self.values[name] = value
            self.definitions[name] = f"{name} = {self._literal(name, value)}"
        elif self.values[name] is not value:
            raise self._refused(name, "stands for two different values")

    def _import(self, name: str, line: str) -> None:
        if self.imports.setdefault(name, line) != line:
            raise self._refused(name, "stands for two different things")

    def _literal(self, name: str, value: object) -> str:
        """Return Python source for a JSON value, a tuple of such, or a part of a config."""
        if value is None or type(value) in {bool, int, str} or (type(value) is float and math.isfinite(value)):
            return repr(value)
        if type(value) in {list, tuple}:
            assert isinstance(value, list | tuple)
            inner = ", ".join(self._literal(name, one) for one in value)
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if type(value) is dict and all(type(key) is str for key in value):
            return "{" + ", ".join(f"{key!r}: {self._literal(name, one)}" for key, one in value.items()) + "}"
        if dataclasses.is_dataclass(value) and (module := _module_of(type(value))) is not None:
            kind = type(value).__name__
            self._import(kind, f"from {module} import {kind}")
            given = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
            plain = {one.name: one.default for one in dataclasses.fields(value)}
            inner = ", ".join(
                f"{field}={self._literal(name, one)}" for field, one in given.items() if one is not plain[field]
            )
            return f"{kind}({inner})"
        raise self._refused(name, f"is {_called(value)}")

    def _refused(self, name: str, why: str) -> UserError:
        return UserError(
            f"space function {self.function.__name__!r} uses {name!r}, which {why} and can't be recorded: a space may use JSON "
            "values, parts of a config, functions and modules; make it inside the function, or put the space into a file"
        )


def _source_of(thing: FunctionType | type, space: str) -> str:
    """Return the source of a function or class, without the indentation that it has where it stands."""
    try:
        text = textwrap.dedent(inspect.getsource(thing))
        ast.parse(text)
    except (OSError, TypeError, SyntaxError):
        raise UserError(
            f"the source of {thing.__name__!r} can't be had, which space function {space!r} needs to be recorded: define it in "
            "a file, a script or a notebook"
        ) from None
    return text.strip()


def _names_in(source: str) -> list[str]:
    """Return the names that ``source`` reads from outside itself: its locals and its annotations are left out."""
    outside: dict[str, None] = {}
    tables = [symtable.symtable(f"from __future__ import annotations\n{source}", "space", "exec")]
    while tables:
        table = tables.pop(0)
        # At the top stand the decorators and the bases of classes; a name that is assigned there is the source's own.
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            from_outside = not symbol.is_assigned() if top else symbol.is_global()
            if symbol.is_referenced() and from_outside:
                outside[symbol.get_name()] = None
        tables += table.get_children()
    return list(outside)


def _value_of(name: str, thing: FunctionType | type) -> object:
    """Return what ``name`` stands for in the function or class: of its closure, else of its module."""
    if isinstance(thing, FunctionType):
        unwrapped = inspect.unwrap(thing)
        assert isinstance(unwrapped, FunctionType)
        closure = dict(zip(unwrapped.__code__.co_freevars, unwrapped.__closure__ or (), strict=True))
        if name in closure:
            try:
                found: object = closure[name].cell_contents
            except ValueError:
                return _OWN  # not assigned yet
            return found
        return unwrapped.__globals__.get(name, _OWN)
    module: Any = sys.modules.get(thing.__module__)
    return getattr(module, name, _OWN)


def _module_of(value: object) -> str | None:
    """Return the module that ``value`` can be imported from by its name; None where it is the caller's own."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "." in name:
        return None
    if getattr(sys.modules.get(module), name, None) is not value or not _installed(module):
        return None
    return module


@cache
def _installed(module: str) -> bool:
    """Return True if ``module`` is of Python, of this project or of an installed package: found wherever a sweep goes on."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or top in _OURS or top in packages_distributions()


def _called(value: object) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, float) else f"the number {value!r}"
