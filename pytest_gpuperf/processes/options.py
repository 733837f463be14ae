"""Say which options of a session its child processes get: all but those of one table."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from pytest_gpuperf.words import actions, split

NOT_PASSED_ON: Mapping[str, Mapping[str, str]] = {
    "selection": {
        "_pytest": "-k -m --deselect --lf --lfnf --ff --nf --sw --sw-skip --sw-reset -x --maxfail "
        "--continue-on-collection-errors --collect-only",
        "pytest_benchmark": "--benchmark-only --benchmark-skip",
        "pytest_split": "--splits --group --splitting-algorithm --durations-path --store-durations "
        "--clean-durations",
        "pytest_shard": "--num-shards --shard-id",
    },
    "reports": {
        "_pytest": "--junit-xml --junit-prefix --pastebin --log-file --log-file-mode --durations "
        "--durations-min --debug",
        "pytest_html": "--html --css --self-contained-html",
        "pytest_reportlog": "--report-log --report-log-exclude-logs-on-passed-tests",
        "pytest_jsonreport": "--json-report --json-report-file",
        "allure_pytest": "--alluredir --clean-alluredir",
        "pytest_benchmark": "--benchmark-json --benchmark-save --benchmark-save-data --benchmark-autosave "
        "--benchmark-compare --benchmark-compare-fail --benchmark-histogram --benchmark-storage "
        "--benchmark-cprofile --benchmark-cprofile-dump",
    },
    "coverage": {
        "pytest_cov": "--cov --cov-report --cov-config --cov-fail-under --cov-append --cov-branch "
        "--cov-context --cov-reset --cov-precision --no-cov --no-cov-on-fail",
    },
    "xdist": {
        "xdist": "-n --maxprocesses --max-worker-restart --dist --loadscope-reorder "
        "--no-loadscope-reorder --tx --px -d -f --rsyncdir --rsyncignore --testrunuid --maxschedchunk",
    },
    "reruns": {
        "pytest_rerunfailures": "--reruns --reruns-delay --only-rerun --rerun-except "
        "--rerun-show-tracebacks --fail-on-flaky --force-reruns",
        "flaky": "--force-flaky --max-runs --min-passes --no-flaky-report",
    },
    "time limits": {
        "pytest_timeout": "--timeout --timeout-method --timeout-disable-debugger-detection --session-timeout",
    },
    "order": {
        "pytest_randomly": "--randomly-seed --randomly-dont-reorganize",
        "random_order": "--random-order --random-order-bucket --random-order-seed",
        "pytest_order": "--order-scope --order-scope-level --order-group-scope --order-dependencies "
        "--sparse-ordering --indulgent-ordering",
    },
    "terminal": {"_pytest": "-s --capture --pdb --pdbcls --trace --help --version"},
    "places": {"_pytest": "-c --rootdir --basetemp --cache-show --cache-clear"},
    "ours": {"pytest_gpuperf": "--gpuperf*"},
}
"""The options that a child does not get, by kind and by the plugin that has them, pytest itself among those.

Another name of the same option counts, too. Where a plugin is not loaded, an option of that name is the
project's own. "places" and "ours" are given anew, as far as they matter.
"""
OF_THE_TEST = ("reruns", "time limits")
"""Kinds that a test's own process does get: it is the test's run, not one that measures it once more."""
_NEEDED = {"-p", "-W", "--pythonwarnings", "--import-mode", "--confcutdir", "--noconftest"}
"""pytest's own options by which a test may run, or fail, in another way."""
NOT_INHERITED = (
    *("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST*", "PYTEST_DEBUG", "PYTEST_JSON_REPORT*"),
    *("COV_CORE_*", "COVERAGE_*", "JUNIT_*", "ALLURE_*", "BUILDKITE_ANALYTICS_*"),
    *("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE"),
)
"""Variables that a child does not get: other tools' options and reports, and files that a CI job reads."""


_OF_THE_PROJECT = pytest.StashKey[list[str]]()


def passed_on(config: pytest.Config, of_the_test: bool = False) -> tuple[list[str], list[str]]:
    """Return the options and the paths of a session, addopts and PYTEST_ADDOPTS among them, for a child.

    ``of_the_test``: for a process that runs a test for the session, rather than once more. The paths decide
    which conftest files have a say about options.
    """
    left = _left_behind(config, OF_THE_TEST if of_the_test else ())
    options: list[str] = []
    paths: list[str] = []
    for given in split(actions(config), [*config.getini("addopts"), *_words(config)]):
        if not given.names:
            paths += given.words
        elif not any(_listed(name, left) for name in given.names):
            options += given.words
    return options, paths


def of_the_project(config: pytest.Config) -> list[str]:
    """Return the options given that a test needs to run as it ran, for a command that a person may paste.

    Those of conftest files and other plugins, but for the table above, and of pytest's own a few: its
    terminal is the person's. What an ini file adds is added again.
    """
    if _OF_THE_PROJECT not in config.stash:
        config.stash[_OF_THE_PROJECT] = list(_of_the_project(config))
    return config.stash[_OF_THE_PROJECT]


def _of_the_project(config: pytest.Config) -> Iterator[str]:
    left = [*_left_behind(config), *(actions(_bare()).keys() - _NEEDED)]
    plugins = {name for kind in NOT_PASSED_ON.values() for name in kind}
    for given in split(actions(config), _words(config)):
        loads = given.words[1] if given.words[0] == "-p" else given.words[0].removeprefix("-p")
        known = "-p" in given.names and (loads.startswith("no:") or loads.partition(".")[0] in plugins)
        if given.names and not known and not any(_listed(name, left) for name in given.names):
            yield from given.words


@cache
def _bare() -> pytest.Config:
    """Return a configuration with pytest's own options and no others."""
    from _pytest.config import get_config

    return get_config()


def environment() -> dict[str, str]:
    """Return this process's variables but for those that a child does not get."""
    return {name: value for name, value in os.environ.items() if not _listed(name, NOT_INHERITED)}


def _left_behind(config: pytest.Config, but: Collection[str] = ()) -> list[str]:
    """Return the options of the table that loaded plugins have, without the kinds ``but``."""
    loaded = _loaded(config)
    owners = [item for kind in NOT_PASSED_ON if kind not in but for item in NOT_PASSED_ON[kind].items()]
    return [name for plugin, names in owners if plugin in loaded for name in names.split()]


def _loaded(config: pytest.Config) -> set[str]:
    """Return the top-level modules of the plugins that are loaded, however that was asked for."""
    plugins = config.pluginmanager.get_plugins()
    names = (getattr(each, "__name__", None) or type(each).__module__ for each in plugins)
    return {name.partition(".")[0] for name in names}


def _listed(name: str, table: Collection[str]) -> bool:
    wholes = {entry for entry in table if not entry.endswith("*")}
    return name in wholes or name.startswith(tuple(entry[:-1] for entry in table if entry.endswith("*")))


def _words(config: pytest.Config) -> list[str]:
    """Return what the session was given beside addopts, in the order in which pytest puts it together."""
    added = shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    return [*added, *_from_files(config, map(str, config.invocation_params.args))]


def _from_files(config: pytest.Config, words: Iterator[str]) -> Iterator[str]:
    """Yield ``words``, for ``@FILE`` the lines of that file."""
    for word in words:
        file = config.invocation_params.dir / word[1:]
        if word.startswith("@") and file.is_file():
            yield from _from_files(config, iter(Path(file).read_text().splitlines()))
        else:
            yield word
