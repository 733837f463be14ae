"""Draw docs/page.png: the page that --gpuperf-html writes, of a real run without a GPU, by headless Chromium.

Run it again when the page's looks have changed: python tools/page_picture.py
With a folder it writes there how the page looks on a phone, in the dark and on paper, to be looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parent.parent
SUITE = """
import random
from pathlib import Path

FACTOR = float(Path(__file__).with_name("factor").read_text())


def test_tokenise(gpuperf):
    sizes = [FACTOR * 1.9e9 * random.gauss(1, 0.004) for _ in range(40)]
    gpuperf.record("memory", sizes, "B", "lower")


def test_cache(gpuperf):
    gpuperf.record("hits", [97 + random.gauss(0, 0.2) for _ in range(40)], "%", "higher")
"""


def write_page(folder: Path, page: Path) -> None:
    """Write the page of a run with a figure that has regressed, and its trend."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOP),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_gpuperf.plugin",
        "CUDA_VISIBLE_DEVICES": "-1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    environment.pop("CI", None)

    def run(*command: str) -> None:
        subprocess.run(command, cwd=folder, env=environment, capture_output=True)

    def pytest(*flags: str) -> None:
        run(sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider", "--gpuperf", *flags)

    run(sys.executable, "-m", "pytest_gpuperf.command", "init")
    (folder / "suites" / "test_tokens.py").write_text(SUITE)
    (folder / "suites" / "factor").write_text("1")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "First kernels")):
        run("git", *arguments)
    pytest("--gpuperf-update")
    for factor in ("1", "1.01", "1.012"):
        (folder / "suites" / "factor").write_text(factor)
        pytest("--gpuperf-history=history")
    (folder / "suites" / "factor").write_text("1.2")
    pytest("--gpuperf-history=history", f"--gpuperf-html={page}")


def photograph(chromium: str, page: Path, picture: Path, width: int, height: int, *flags: str) -> None:
    """Take a picture of the page, or print it where ``picture`` is a PDF."""
    how = "--print-to-pdf" if picture.suffix == ".pdf" else "--screenshot"
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", f"{how}={picture}"),
            f"file://{page}",
        ]
        subprocess.run(command, capture_output=True, check=True, timeout=120)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "page.html"
        write_page(folder, page)
        if len(sys.argv) == 1:
            photograph(chromium, page, TOP / "docs" / "page.png", 1000, 1150)
            return
        there = Path(sys.argv[1]).resolve()
        shutil.copy(page, there / "page.html")
        photograph(chromium, page, there / "wide.png", 1000, 2400)
        photograph(chromium, page, there / "phone.png", 500, 3000)
        photograph(chromium, page, there / "dark.png", 1000, 1500, "--blink-settings=preferredColorScheme=0")
        photograph(chromium, page, there / "paper.pdf", 1000, 1500)


if __name__ == "__main__":
    main()
