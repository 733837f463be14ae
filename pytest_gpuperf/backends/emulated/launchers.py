"""Write the functions by which the runtime enters a kernel, behind the kernel file's preprocessed code."""

from __future__ import annotations

import json
import re

from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.emulated.source import shown
from pytest_gpuperf.backends.functions import Function, closing
from pytest_gpuperf.backends.signature import PLACE, address_of
from pytest_gpuperf.errors import KernelError

BOUNDS = "gpuperf_launch_bounds"
_BOUNDS = re.compile(r"\b__launch_bounds__\s*\(")

_LAUNCHER = """
static __attribute__((no_sanitize("thread"), optimize("optimize-sibling-calls")))
void gpuperf_call_{number}(void **arguments) {{
  gpuperf::call({kernel}, arguments);
}}
static constexpr auto gpuperf_types_{number} =
    gpuperf_types::Described<std::decay<decltype({kernel})>::type>::table();
"""
_TABLE = """
extern "C" const gpuperf::Kernel gpuperf_kernels[] = {{{rows} {{}}}};
extern "C" const uint32_t gpuperf_kernel_count = {count};
"""
_PROBE = """
extern "C" const volatile void *const gpuperf_address = (const volatile void *)({address});
extern "C" const auto gpuperf_types_of = gpuperf_types::Described<decltype({address})>::table();
"""


def note_launch_bounds(code: Code) -> None:
    """Have each instance of a kernel template hold its __launch_bounds__, which its parameters may decide."""
    for function in code.functions():
        head = code.code[function.begin : function.body]
        bounds = _BOUNDS.search(head)
        if bounds and re.search(r"\btemplate\b", head):
            most = head[bounds.end() : _end(head, bounds.end(), ",")]
            text = f" static constexpr unsigned {BOUNDS} __attribute__((used)) = ({most});"
            code.insert(function.body + 1, text)


def launchers(code: Code) -> str:
    """Return a launcher for each of a file's kernels that is no template, and a table of them.

    Raises KernelError for one that returns a value.
    """
    functions = list(code.functions())
    kernels = [f for f in functions if re.search(r"\b__global__\b", head := code.code[f.begin : f.body]) and
               not re.search(r"\btemplate\b", head)]  # fmt: skip
    named = [(_name(code, f), f) for f in kernels]
    names = [(function.scope, name[0]) for name, function in named]
    bounds = _launch_bounds(code.code)
    made, rows = [f'\n# 1 "{PLACE}"\n'], []
    for number, ((name, at, parameters), function) in enumerate(named):
        file, line = code.where(at)
        around = code.code[function.begin : at], code.code[at : function.body].rpartition(")")[2]
        if not re.search(r"\bvoid\b", " ".join(around)):  # before it, or behind an arrow
            raise KernelError(f"{shown(file)}:{line}: kernel {name} returns a value; a kernel returns void")
        overloaded = names.count((function.scope, name)) > 1
        kernel = f"gpuperf_kernel_{number}"
        address = (
            f"static_cast<void (*)({_without_defaults(parameters)})>(&{name})" if overloaded else f"&{name}"
        )
        scope = "::".join(function.scope)
        begin, end = (f"namespace {scope} {{ ", " }") if scope else ("", "")
        made.append(f"{begin}constexpr auto {kernel} = {address};{end}\n")
        qualified = f"{scope}::{kernel}" if scope else kernel
        made.append(_LAUNCHER.format(number=number, kernel=qualified))
        full = f"{scope}::{name}" if scope and not _c_linkage(code, function) else name
        rows.append(_row(number, full, str(file), line, bounds.get(name, "0"), qualified))
    return "".join([*made, _TABLE.format(rows="".join(rows), count=len(rows))])


def launcher_of(name: str) -> str:
    """Return the launcher of the one kernel that a C++ expression names; raises Unresolved if it cannot."""
    kernel = "gpuperf_kernel_0"
    made = f'\n# 1 "{PLACE}"\nconstexpr auto {kernel} = {address_of(name)};\n' + _LAUNCHER.format(
        number=0, kernel=kernel
    )
    return made + _TABLE.format(rows=_row(0, name, "", 0, "0", kernel), count=1)


def probe_of(name: str) -> str:
    """Return what tells the address and the type of the variable that a C++ expression names."""
    return f'\n# 1 "{PLACE}"' + _PROBE.format(address=address_of(name))


def _row(number: int, name: str, file: str, line: int, bounds: str, kernel: str) -> str:
    texts = ", ".join(json.dumps(text, ensure_ascii=False) for text in (name, file))
    entered = f"gpuperf_call_{number}, (const void *){kernel}"
    return f"{{{texts}, {line}, {bounds}, &gpuperf_types_{number}, {entered}}}, "


def _name(code: Code, function: Function) -> tuple[str, int, str]:
    """Return a function's name, where it stands, and the text of its parameters."""
    at, found = function.begin, ("", function.begin, "")
    for match in re.compile(r"(\w+)\s*(\()").finditer(code.code, function.begin, function.body):
        if match.start() < at:
            continue
        at = closing(code.code, match.start(2))
        if match[1] not in ("__launch_bounds__", "__attribute__", "alignas", "__align__", "noexcept"):
            found = match[1], match.start(1), code.user[match.end() : at]
    return found


def _c_linkage(code: Code, function: Function) -> bool:
    return '"C"' in code.code[function.begin : function.body]


def _without_defaults(parameters: str) -> str:
    return re.sub(r"=[^,]*", "", parameters)


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
