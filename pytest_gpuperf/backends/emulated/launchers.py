"""Write the functions by which the runtime enters a kernel, behind the kernel file's preprocessed code."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BOUNDS = re.compile(r"\b__launch_bounds__\s*\(")

# Its address, the number and sizes of its parameters, and the most threads that a block may have (0: any).
_LAUNCHER = """
extern "C" __attribute__((no_sanitize("thread"))) void gpuperf_call_{name}(void **arguments) {{
  gpuperf::call({name}, arguments);
}}
extern "C" uint32_t gpuperf_count_{name}() {{ return decltype(gpuperf::signature({name}))::count; }}
extern "C" const uint32_t *gpuperf_sizes_{name}() {{ return decltype(gpuperf::signature({name}))::sizes; }}
extern "C" uint32_t gpuperf_bounds_{name}() {{ return {bounds}; }}
"""


def launchers(code: str, names: Iterable[str]) -> str:
    """Return a launcher for each kernel; ``code`` is the user's, without comments and literals."""
    bounds = _launch_bounds(code)
    made = (_LAUNCHER.format(name=name, bounds=bounds.get(name, "0")) for name in names)
    return '\n# 1 "the launchers"' + "".join(made)


def _launch_bounds(code: str) -> dict[str, str]:
    """Return the first argument of each function's __launch_bounds__, as it is written."""
    found = {}
    for match in _BOUNDS.finditer(code):
        end = _end(code, match.end())
        declarator = re.split("[;{]", code[end:], maxsplit=1)[0]
        if name := re.search(r"(?<!_)\b(?!__)(\w+)\s*\(", declarator):
            found[name[1]] = f"({code[match.end() : _end(code, match.end(), ',')]})"
    return found


def _end(code: str, start: int, until: str = "") -> int:
    """Return the offset of the bracket that closes the one before ``start``, or of an ``until`` before it."""
    depth = 0
    for offset in range(start, len(code)):
        if code[offset] in "([{":
            depth += 1
        elif code[offset] in ")]}":
            depth -= 1
        if depth < 0 or (depth == 0 and code[offset] in until):
            return offset
    return len(code)
