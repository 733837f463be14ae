"""Draw docs/failure.svg: what a person reads when the tutorial's regression fails, from a real run.

Run it again when the output's format has changed: python tools/failure_picture.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

TOP = Path(__file__).parent.parent
COLOURS = {
    "1": None,
    "31": "#ff7b72",
    "32": "#7ee787",
    "33": "#e3b341",
    "34": "#79c0ff",
    "35": "#d2a8ff",
    "36": "#76e3ea",
}
WIDTH, LINE, LEFT = 8.43, 19, 16
COLUMNS = 80


def output() -> str:
    """Return the terminal's text, with its colours, of the tutorial's failing run."""
    page = (TOP / "docs" / "tutorial.md").read_text()
    (kernel,) = re.findall(r"<!-- file: kernels/scale.cu -->\n```cuda\n(.*?)```", page, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "COLUMNS": str(COLUMNS),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "pytest_gpuperf.plugin",
            **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        environment.pop("CI", None)
        environment["CUDA_VISIBLE_DEVICES"] = "-1"

        def run(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            return done.stdout

        pytest = (sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider", "--gpuperf")
        run(sys.executable, "-m", "pytest_gpuperf.command", "init")
        run("git", "init", "-q")
        for recording in ((*pytest, "--gpuperf-update"), ("true",)):
            run("git", "add", "-A")
            run("git", "commit", "-q", "-m", "As in the tutorial")
            run(*recording)
        (Path(folder) / "kernels" / "scale.cu").write_text(kernel)
        text = run(*pytest, "--color=yes")
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if "FAILURES" in line)
    return "\n".join(["\x1b[1m$ pytest suites --gpuperf\x1b[0m", *lines[first:]])


def spans(line: str) -> str:
    """Return a line's text with its colours as SVG."""
    found, colour, bold = [], None, False
    for number, part in enumerate(re.split(r"\x1b\[([\d;]*)m", line)):
        if number % 2:
            codes = part.split(";")
            bold = "1" in codes or (bold and "0" not in codes and part != "")
            colour = next(
                (COLOURS[code] for code in codes if COLOURS.get(code)), None if "0" in codes else colour
            )
        elif part:
            style = f' fill="{colour}"' if colour else ""
            style += ' font-weight="bold"' if bold else ""
            found.append(f"<tspan{style}>{escape(part)}</tspan>")
    return "".join(found)


def main() -> None:
    lines = output().splitlines()
    height = LINE * (len(lines) + 2)
    rows = "\n".join(
        f'<text x="{LEFT}" y="{LINE * (number + 2)}" xml:space="preserve">{spans(line)}</text>'
        for number, line in enumerate(lines)
    )
    longest = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    width = round(WIDTH * max(COLUMNS, longest)) + 2 * LEFT
    box = f'viewBox="0 0 {width} {height}" width="{width}"'
    font = 'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14" fill="#e6edf3"'
    (TOP / "docs" / "failure.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">\n'
        "<title>The output of a test that has regressed</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        f"<g {font}>\n{rows}\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    main()
