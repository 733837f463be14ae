"""Write what docs/reference.md takes from the code: every flag, ini key, marker argument and fixture.

Run it when one has changed: python tools/reference.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pytest_gpuperf.flags import add_options
from pytest_gpuperf.marker import TestOptions

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs" / "reference.md"
BEGIN, END = "<!-- from here on by tools/reference.py -->", "<!-- to here -->"
FIXTURES = ("fixtures.py",)


class Collector:
    """Stands in for pytest's parser and keeps what the plugin declares."""

    def __init__(self) -> None:
        self.flags: list[tuple[str, str]] = []
        self.keys: list[tuple[str, str]] = []

    def getgroup(self, *_: str) -> Collector:
        return self

    def addoption(self, flag: str, *, help: str, metavar: str = "", nargs: str = "", **_: object) -> None:
        if not help.startswith("=="):  # argparse.SUPPRESS
            value = f"[={metavar}]" if nargs == "?" else f"={metavar}" if metavar else ""
            self.flags.append((f"{flag}{value}", help.replace("%%", "%")))

    def addini(self, key: str, help: str, default: object = "", **_: object) -> None:
        shown = "" if default in ("", []) else f" (default: `{default}`)"
        self.keys.append((key, f"{help}{shown}"))


def fixtures() -> list[tuple[str, str]]:
    """Return each fixture with the first paragraph of its docstring."""
    found = []
    for name in FIXTURES:
        for node in ast.parse((TOP / "pytest_gpuperf" / name).read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(
                "fixture" in ast.unparse(d) for d in node.decorator_list
            ):
                text = (ast.get_docstring(node) or "").partition("\n\n")[0]
                found.append((node.name, " ".join(text.replace("``", "`").split())))
    return found


def generated() -> str:
    """Return the part of the page that is made from the code."""
    declared = Collector()
    add_options(declared)  # type: ignore[arg-type]
    parts = [BEGIN, "", "## Everything, from the code", ""]
    for title, rows in (("flag", declared.flags), ("ini key", declared.keys), ("fixture", fixtures())):
        parts += [f"| {title} | |", "|---|---|"]
        parts += [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows]
        parts.append("")
    parts += [
        "`@pytest.mark.gpuperf` takes "
        + ", ".join(f"`{name}`" for name in TestOptions.__dataclass_fields__)
        + ".",
        "",
        END,
    ]
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> None:
    text = PAGE.read_text()
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    PAGE.write_text(re.sub(pattern, lambda _: generated(), text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
