"""What the gpuperf markers of a test state, read from its source without running it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_MARK = "gpuperf"
_READ = ("tolerance", "until")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Function | ast.ClassDef
IsOurs = Callable[[str], bool]
"""Whether a module, by its name in an import statement, is the project's own."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a test's markers state, the closest winning, as pytest would have it.

    ``unknown`` is what cannot be read without running it, "" if all can. ``text`` is the markers' source with
    that of every name in it, and ``modules`` are the modules that such names are imported from: two tests
    with the same text, of the same modules, have the same markers.
    """

    tolerance: float | None = None
    until: str | None = None
    unknown: str = ""
    text: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()


def stated(source: str, names: Sequence[str], ours: IsOurs) -> Stated | None:
    """Return what the markers of a test state; ``names`` are its classes' and its function's.

    None: there is no such test. Raises SyntaxError for what is not Python.
    """
    module = _parsed(source)
    chain: list[_Definition] = []
    body: Sequence[ast.stmt] = module.body
    for name in names:
        found = [node for node in _scope(body) if isinstance(node, _Definition) and node.name == name]
        if not found:
            return None
        chain.append(found[-1])
        body = found[-1].body
    reader = _Reader(module, ours)
    for definition in reversed(chain):
        if isinstance(definition, ast.ClassDef):
            for value in _assigned(definition.body, "pytestmark"):
                reader.read(value)
            for base in definition.bases:
                reader.read(base)  # whose markers a class has too
        for decorator in reversed(definition.decorator_list):
            reader.read(decorator)
    for value in _assigned(module.body, "pytestmark"):
        reader.read(value)
    found_values = {name: reader.values.get(name) for name in _READ}
    return Stated(
        **found_values, unknown=reader.unknown, text=tuple(reader.text), modules=frozenset(reader.modules)
    )


def computed(source: str) -> tuple[str, ...]:
    """Return the text of what makes gpuperf markers beside the decorators, with that of every name in it.

    Such as ``request.applymarker`` in a test or a fixture. Raises SyntaxError for what is not Python.
    """
    module = _parsed(source)
    reader = _Reader(module, lambda name: False)
    for node in ast.walk(module):
        if isinstance(node, _Function) and any(map(_mentions, node.body)):
            for statement in node.body:
                reader.note(statement)
    for statement in _scope(module.body):
        if not isinstance(statement, _Definition) and _mentions(statement):
            reader.note(statement)
    return tuple(reader.text)


_parsed = lru_cache(maxsize=16)(ast.parse)


@dataclass
class _Reader:
    """Reads the markers of one test, the closest first."""

    module: ast.Module
    ours: IsOurs
    values: dict[str, Any] = field(default_factory=dict)
    unknown: str = ""
    text: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def read(self, expression: ast.expr) -> None:
        """Take in a decorator, or the value of ``pytestmark``."""
        self.note(expression)
        self._take(expression)

    def note(self, node: ast.AST) -> None:
        """Add the source of ``node``, and that of the names in it, to what identifies the markers."""
        self.text.append(ast.dump(node))
        for name in (part.id for part in ast.walk(node) if isinstance(part, ast.Name)):
            if name not in self._seen:
                self._seen.add(name)
                for bound in _bindings(self.module, name):
                    self.modules.update(_imported(bound, name))
                    self.note(bound)

    def _take(self, node: ast.expr) -> None:
        if isinstance(node, ast.List | ast.Tuple):
            for element in node.elts:
                self._take(element)
            return
        call = node if isinstance(node, ast.Call) else None
        made = call.func if call else node
        if isinstance(made, ast.Attribute) and _is_mark(made.value):
            if made.attr == _MARK and call:
                self._arguments(call)
            elif any(_mentions(part) for part in ast.iter_child_nodes(node) if part is not made):
                self._give_up(node)  # such as a parameter's marks=
        elif _mentions(node):
            self._give_up(node)
        else:
            self._by_name(node, made)

    def _by_name(self, node: ast.expr, made: ast.expr) -> None:
        """Take in what a name stands for: a marker, or a decorator of another kind."""
        root = made
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        bound = _bindings(self.module, root.id) if isinstance(root, ast.Name) else []
        if not isinstance(root, ast.Name):
            self._give_up(node)
        elif len(bound) == 1 and isinstance(bound[0], ast.Assign) and made is node is root:
            self._take(bound[0].value)
        elif any(map(_mentions, bound)) or any(
            self.ours(module) for each in bound for module in _imported(each, root.id)
        ):
            self._give_up(node)

    def _arguments(self, call: ast.Call) -> None:
        for keyword in call.keywords:
            if keyword.arg is None:
                self._give_up(keyword.value)
            elif keyword.arg in _READ and keyword.arg not in self.values:
                self.values[keyword.arg] = self._value(keyword.value)

    def _value(self, node: ast.expr) -> Any:
        bound = _bindings(self.module, node.id) if isinstance(node, ast.Name) else []
        value = bound[0].value if len(bound) == 1 and isinstance(bound[0], ast.Assign) else node
        try:
            found = ast.literal_eval(value)
        except (ValueError, TypeError):
            found = None
        if not isinstance(found, int | float | str):
            self._give_up(node)
        return found

    def _give_up(self, node: ast.expr) -> None:
        self.unknown = self.unknown or ast.unparse(node)


def _is_mark(node: ast.expr) -> bool:
    """Return whether an expression is ``pytest.mark`` or ``mark``."""
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == "mark"


def _mentions(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == _MARK for part in ast.walk(node))


def _scope(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module or class, those in its ``if`` and ``try`` included."""
    for statement in body:
        yield statement
        if not isinstance(statement, _Definition):
            for name in ("body", "orelse", "finalbody"):
                yield from _scope(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                yield from _scope(handler.body)


def _assigned(body: Sequence[ast.stmt], name: str) -> list[ast.expr]:
    """Return the values that a name is given in a module or class."""
    return [
        statement.value
        for statement in _scope(body)
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value is not None
        for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
        if isinstance(target, ast.Name) and target.id == name
    ]


def _bindings(module: ast.Module, name: str) -> list[ast.stmt]:
    """Return the statements of a module that give ``name`` a meaning."""
    return [statement for statement in _scope(module.body) if name in _bound(statement)]


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, _Definition):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts = [part for target in targets for part in ast.walk(target)]
        return {part.id for part in parts if isinstance(part, ast.Name)}
    return set()


def _imported(statement: ast.stmt, name: str) -> set[str]:
    """Return the module that an import statement takes ``name`` from; relative ones begin with a point."""
    if isinstance(statement, ast.ImportFrom):
        return {"." * statement.level + (statement.module or "")}
    if isinstance(statement, ast.Import):
        return {a.name for a in statement.names if (a.asname or a.name).partition(".")[0] == name}
    return set()
