"""What an ONNX file consists of: the file itself, and those beside it that hold its weights."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_gpuperf.cache import sha256

# An entry of TensorProto.external_data with the key "location", and the length of its value in one byte or
# two: as protobuf writes it, so that nothing need be installed to find it.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])", re.DOTALL)


def digest(path: Path) -> str:
    """Return 16 hexadecimal digits that another model in the file changes, its external weights included."""
    found = [sha256(path), *(sha256(each) for each in external(path))]
    return (found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest())[:16]


def external(path: Path) -> list[Path]:
    """Return the files that hold weights of an ONNX file, sorted; those that are there."""
    if not path.stat().st_size:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = set(_locations(data))
    # Path.is_file raises for a name that no file can have.
    return [each for name in sorted(names) if os.path.isfile(each := path.parent / name)]


def _locations(data: mmap.mmap) -> Iterator[str]:
    for match in _LOCATION.finditer(data):
        first, *second = match[1]
        size = (first & 0x7F) + (second[0] << 7 if second else 0)
        value = data[match.end() : match.end() + size]
        if b"\0" not in value:  # no name of a file: the bytes of a weight, by chance
            yield value.decode(errors="replace")
