"""Read strictly the JSON files that people keep in version control."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.text import printable

T = TypeVar("T")
DEEPEST = 20
"""Levels of nesting that a document may have; ours have seven."""
SMALLEST, LARGEST = 1e-30, 1e30
"""Figures that may be stored, but for 0: nothing measures more, and their powers are numbers too."""
_INTEGER = 10**300
_TOO_DEEP = f"not JSON that can be read: nested deeper than {DEEPEST} levels"
_CONFLICT = re.compile(r"^(<{7}|\|{7}|={7}|>{7})( |$)", re.MULTILINE)


class Malformed(Exception):
    """A problem in a file and its place, with its remedy if the general one does not apply."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.remedy = remedy


class _Object(dict[str, Any]):
    """A JSON object that remembers a key it was given twice, which dict and msgspec drop silently."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: str | None = None
        if len(self) < len(pairs):
            keys = [key for key, _ in pairs]
            self.twice = next(key for i, key in enumerate(keys) if key in keys[:i])


def read_object(data: bytes, what: str, newest: int, after_conflict: str) -> dict[str, Any]:
    """Return a document of a schema from 1 to ``newest``; raises Malformed with the place.

    ``what`` begins the sentence "... a JSON object"; ``after_conflict`` is the remedy for a merge conflict.
    """
    try:
        text = data.decode("utf-8-sig")  # editors of Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise Malformed(f"byte {error.start} is not UTF-8") from None
    if text.startswith("version https://git-lfs"):
        raise Malformed("it is a pointer of Git LFS", "git lfs pull, or keep such files out of Git LFS")
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        raise Malformed(f"line {line} is a merge conflict marker ({conflict[1]})", after_conflict)
    try:
        document = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        end = " (cut short?)" if error.pos >= len(text.rstrip()) else ""
        where = f"line {error.lineno} column {error.colno}"
        raise Malformed(f"{where} is not JSON: {error.msg}{end}") from None
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None
    except ValueError as error:
        raise Malformed(f"not JSON that can be read: {error}") from None
    if not isinstance(document, dict):
        raise Malformed(f"{what} a JSON object")
    schema = document.get("schema")
    if type(schema) is not int or schema < 1:
        raise Malformed(f"$.schema is {schema!r}, not a version from 1 on")
    if schema > newest:
        raise Malformed(
            f"written by a newer pytest-gpuperf (schema {schema}, and this one reads {newest})",
            "upgrade pytest-gpuperf",
        )
    return dict(_sound(document, "$"))


def json_schema_of(kind: type[Any], title: str) -> str:
    """Return the JSON Schema (2020-12) of a document, as it ships."""
    import msgspec

    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = {"$schema": dialect, "title": f"pytest-gpuperf {title}", **msgspec.json.schema(kind)}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def converted(value: Any, kind: type[T], path: str = "$", strict: bool = True) -> T:
    """Return ``value``, which stands at ``path`` of a document, as a ``kind``; raises Malformed."""
    import msgspec

    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise Malformed(f"{path}{place.rstrip('`')}: {problem}") from None


def _sound(value: Any, path: str, depth: int = 0) -> Any:
    """Return a document's value with text that can be printed.

    Raises Malformed for what JSON parsers let pass and nobody can use: a key given twice, a number that is
    not finite or that no float holds, and nesting without end.
    """
    if depth > DEEPEST:
        raise Malformed(_TOO_DEEP)
    if isinstance(value, _Object):
        if value.twice is not None:
            raise Malformed(f"{path} has the key {value.twice!r} twice")
        return {
            printable(key): _sound(inner, f"{path}{step(key)}", depth + 1) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_sound(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value)]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(f"{path} is {value}, not a number that can be compared")
    if isinstance(value, int) and abs(value) > _INTEGER:
        raise Malformed(f"{path} is a number of more than 300 digits")
    return value


def step(key: str) -> str:
    """Return a key as the next step of a path: ``.name``, or ``["a name"]``."""
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


@contextmanager
def explained(path: Path, done: str) -> Iterator[None]:
    """Turn an OSError into a BaselineError that says what could not be ``done`` to ``path``."""
    try:
        yield
    except OSError as error:
        raise BaselineError(
            f"{path}: cannot be {done} ({error.strerror or error}): check the path and its permissions"
        ) from error
