"""pytest's ini file as a git revision has it: what judges a change does not come from the change."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import iniconfig
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import GitError, Revision, files_at, inside, toplevel
from pytest_gpuperf.words import Given, actions, split

# In the order in which pytest looks for them in a folder.
_ALWAYS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")  # also without a section of pytest's
_NAMES = (*_ALWAYS, "pyproject.toml", "tox.ini", "setup.cfg")
_TRUE = ("y", "yes", "t", "true", "on", "1")


@dataclass(frozen=True, slots=True)
class IniFile:
    """The keys of an ini file; ``name`` is for people, ``folder`` where it lies."""

    name: str
    folder: Path
    keys: Mapping[str, Any]

    def get(self, key: str, default: Any) -> Any:
        """Return a key's value as pytest would, by its default's type: lines, a truth value or text."""
        value = self.keys.get(key, default)
        if isinstance(default, list):
            lines = value.splitlines() if isinstance(value, str) else value
            return [line.strip() for line in lines if line.strip()]
        if isinstance(default, bool):
            return str(value).strip().lower() in _TRUE
        return str(value)

    def arguments(self, key: str) -> list[str]:
        """Return what a key, such as ``addopts``, adds to the command line."""
        value = self.keys.get(key, [])
        return shlex.split(value) if isinstance(value, str) else list(value)


def ini_at(config: pytest.Config, revision: Revision) -> IniFile | None:
    """Return the ini file that pytest would use in a revision, an empty one if there is none there.

    None: the session's own lies outside the repository, so that it is no part of the change. Raises
    pytest.UsageError, one sentence, for a file that cannot be read.
    """
    top = toplevel(config.rootpath)
    own = config.inipath
    if own is not None and not _lies_in(own, config.rootpath, revision):
        return None
    if config.option.inifilename and own is not None:
        names = [inside(own, config.rootpath, revision)[1]]
    else:
        folder = PurePosixPath(_lies_in(_ancestor(config), config.rootpath, revision) or ".")
        names = [str(parent / name) for parent in (folder, *folder.parents) for name in _NAMES]
    for name, text in files_at(top, revision, names):
        where = f"{name} at {revision}"
        try:
            keys = _keys(name, text, named=bool(config.option.inifilename))
        except (ValueError, AttributeError, iniconfig.ParseError) as error:
            raise pytest.UsageError(f"{where}: cannot be read: {error}") from None
        if keys is not None:
            return IniFile(where, top / PurePosixPath(name).parent, keys)
    return IniFile(f"the ini file at {revision}", own.parent if own else config.rootpath, {})


def ini_above(folder: Path) -> IniFile | None:
    """Return the ini file that pytest would use in ``folder``, None if there is none; raises GpuperfError."""
    for parent in (folder, *folder.parents):
        for name in _NAMES:
            path = parent / name
            try:
                keys = _keys(name, path.read_text(), named=False) if path.is_file() else None
            except (OSError, ValueError, AttributeError, iniconfig.ParseError) as error:
                raise GpuperfError(f"{path}: cannot be read: {error}") from None
            if keys is not None:
                return IniFile(str(path), parent, keys)
    return None


def _lies_in(path: Path, root: Path, revision: Revision) -> str:
    try:
        return inside(path, root, revision)[1]
    except GitError:
        return ""


def _ancestor(config: pytest.Config) -> Path:
    """Return the folder from which pytest looks upwards for its ini file."""
    here = config.invocation_params.dir
    paths = [path for arg in config.args if (path := here / arg.partition("::")[0]).exists()]
    common = Path(os.path.commonpath(paths)) if paths else here
    return common if common.is_dir() else common.parent


def _keys(name: str, text: str, named: bool) -> Mapping[str, Any] | None:
    """Return pytest's section of an ini file, None if the file is not pytest's; ``named``: by ``-c``."""
    file = PurePosixPath(name)
    keys: Mapping[str, Any] | None
    if file.suffix == ".toml":
        data = tomllib.loads(text)
        tool = data.get("tool", {}).get("pytest", {})
        keys = tool.get("ini_options", tool or None)
        if keys is None and file.name != "pyproject.toml":
            keys = data.get("pytest")
    else:
        section = "tool:pytest" if file.suffix == ".cfg" else "pytest"
        sections = iniconfig.IniConfig(name, data=text)
        keys = dict(sections[section].items()) if section in sections else None
    return {} if keys is None and (named or file.name in _ALWAYS) else keys


# --------------------------------------------------------------------------- addopts

ACCEPT = "--gpuperf-accept"
_CHOOSING = ("-k", "-m", "--deselect", "--ignore", "--ignore-glob", "--lf", "--sw", "--co", "--setup-plan")
"""pytest's own flags by which a run judges fewer tests; another name of the same counts, too."""
_OURS = ("gpuperf_", "testpaths")
"""How ini keys begin that say what is judged and how."""


def check_addopts(config: pytest.Config, file: IniFile | None, judging: Collection[str]) -> None:
    """Raise pytest.UsageError for flags by which a change's own addopts would judge it, or choose its tests.

    ``file`` is the revision's, None where the change's counts; ``judging`` are flags that decide what fails.
    """
    own = config.getini("addopts")
    if ACCEPT in own:
        raise pytest.UsageError(
            f"{config.inipath}: addopts has {ACCEPT}, by which a change would accept itself: "
            "give it on the command line"
        )
    if file is None:
        return
    now, then = (_chosen(config, words, judging) for words in (own, file.arguments("addopts")))
    if all(given.names for given in now):  # without a path all tests run
        then = [given for given in then if given.names]
    if now != then:
        raise pytest.UsageError(
            f"{config.inipath}: addopts has {_joined(now) or 'no flag that judges'}, and "
            f"{_joined(then) or 'none'} in {file.name}: under --gpuperf-baselines-from a change does not "
            f"say what is judged and how; undo that, or have a maintainer give {ACCEPT}"
        )


def check_testpaths(config: pytest.Config, file: IniFile) -> None:
    """Raise pytest.UsageError for paths of the revision's that a change's own ``testpaths`` leave out."""
    paths = config.getini("testpaths")
    left = [path for path in file.arguments("testpaths") or ["."] if path not in paths]
    if left and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        raise pytest.UsageError(
            f"{config.inipath}: testpaths leaves out {' '.join(left)}, which {file.name} has: under "
            "--gpuperf-baselines-from a change does not say what is judged; undo that, name the paths on the "
            f"command line, or have a maintainer give {ACCEPT}"
        )


def _chosen(config: pytest.Config, words: Sequence[str], judging: Collection[str]) -> list[Given]:
    """Return those of ``words`` that choose tests, are flags of ``judging`` or set ini keys that judge."""
    found = []
    for given in split(actions(config), words):
        value = "".join(given.words).removeprefix("--override-ini").removeprefix("-o").lstrip("=")
        sets = "-o" in given.names and value.startswith(_OURS)
        if not given.names or sets or {*judging, *_CHOOSING}.intersection(given.names):
            found.append(given)
    return found


def _joined(chosen: Sequence[Given]) -> str:
    return shlex.join(word for given in chosen for word in given.words)
