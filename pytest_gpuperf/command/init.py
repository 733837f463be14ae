"""Write a first kernel, a test of it and a workflow into a folder; nothing that is there is overwritten."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pytest_gpuperf import __version__
from pytest_gpuperf.errors import GpuperfError

WORKFLOWS = {"github": ".github/workflows/gpuperf.yml", "gitlab": ".gitlab-ci.yml"}


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where (default: here)")
    parser.add_argument(
        "--ci", choices=(*WORKFLOWS, "none"), default="github", help="whose workflow (default: github)"
    )


def run(given: argparse.Namespace) -> int:
    """Write what is not there, and say what comes next."""
    folder = Path(given.folder)
    templates = Path(__file__).parent / "templates"
    files = {
        "kernels/scale.cu": "scale.cu",
        "suites/test_scale.py": "test_scale.txt",
        ".gitignore": "ignored.txt",
    }
    if given.ci != "none":
        files[WORKFLOWS[given.ci]] = f"{given.ci}.yml"
    wrote = []
    for name, template in files.items():
        text = (templates / template).read_text().replace("@REQUIREMENT@", requirement())
        wrote += [name] if _write(folder / name, text) else []
        print(f"{'wrote' if name in wrote else 'kept '}  {folder / name}")
    if WORKFLOWS.get(given.ci) in wrote and "git+" not in requirement():
        print(f"\n{WORKFLOWS[given.ci]} installs {requirement()}: name there where your runners find it")
    inside = "" if folder.resolve() == Path.cwd() else f"cd {given.folder}; "
    print(
        f"\nNext:\n  {inside}git init; git add -A; git commit -m 'A first kernel'\n"
        "  pytest suites --gpuperf --gpuperf-update   # records baselines/, to be committed\n"
        "  pytest suites --gpuperf                    # judges by them"
    )
    return 0


def _write(path: Path, text: str) -> bool:
    """Write a file that is not there yet, and return whether it was written; raises GpuperfError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise GpuperfError(f"{path.parent} is no folder: choose another FOLDER") from None
    except OSError as error:
        raise GpuperfError(f"{path}: cannot be written ({error.strerror}): choose another FOLDER") from None
    return True


def requirement() -> str:
    """Return what pip installs to have this pytest-gpuperf again: as it was installed here, if by git."""
    import json

    try:
        said = json.loads(distribution("pytest-gpuperf").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        said = {}
    if commit := said.get("vcs_info", {}).get("commit_id"):
        return f"pytest-gpuperf @ git+{said['url']}@{commit}"
    return f"pytest-gpuperf=={__version__}"
