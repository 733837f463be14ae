"""Every flag and ini key: the command line wins over the marker, the marker over the ini file.

A session without GPU tests loads this, too: what a flag needs to be read is loaded with its first value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from pytest_gpuperf.values import (
    SANITIZERS,
    above_zero,
    count_or_file,
    integer,
    one_of,
    sanitizers,
    update_mode,
)


class Setting(NamedTuple):
    """``--gpuperf-NAME`` and the ini key ``gpuperf_name``.

    ``flag`` is the metavar, "" for no flag; ``ini`` the ini key's default, None for no ini key. ``more`` are
    further arguments of ``addoption``.
    """

    name: str
    flag: str
    ini: Any
    convert: Callable[[str], Any]
    help: str
    more: Mapping[str, Any] = {}


def _backend(text: str) -> str:
    from pytest_gpuperf.backends import BACKENDS

    return one_of(*BACKENDS)(text)


def _runs_kept(text: str) -> int:
    from pytest_gpuperf.rules.estimate import MIN_RUNS

    return integer(MIN_RUNS, 1000)(text)


def _tolerance(line: str) -> Any:
    from pytest_gpuperf.rules.tolerances import parse

    return parse(line)


_SECONDS = above_zero("seconds")
SETTINGS = (
    Setting("backend", "NAME", "auto", _backend,
            "Where kernels run: auto (a CUDA device if there is one), cuda (PyCUDA), cuda-core or emulated."),
    Setting("update", "append|new|prune", None, update_mode,
            "Record baselines instead of judging: replace those of the selected tests, append runs to them, "
            "write only new ones, or (prune) replace and drop those of tests that are gone. Write the paths "
            "before it.", {"nargs": "?", "const": "replace"}),
    Setting("plan", "FILE", None, str,
            "Measure nothing: compile for the GPU of --gpuperf-pool, say which tests do their baselines' own "
            "work, and write the others' node ids to FILE (gpuperf-plan.txt). Exit code 23 if there are any. "
            "Write the paths before it.", {"nargs": "?", "const": "gpuperf-plan.txt"}),
    Setting("trace", "FILE|FOLDER", None, str,
            "Measure nothing: record each test's CUDA calls and the device's work, print them as a table and "
            "write FILE (gpuperf-trace.json) for Perfetto. Write the paths before it.",
            {"nargs": "?", "const": "gpuperf-trace.json"}),
    Setting("sanitize", "TOOL,...", None, sanitizers,
            "Measure nothing: run the tests that use the GPU under NVIDIA's compute-sanitizer, once for each "
            "of memcheck, racecheck, initcheck and synccheck (default: all), and fail those with a finding. "
            "Write the paths before it.", {"nargs": "?", "const": ",".join(SANITIZERS)}),
    Setting("runs", "N", None, integer(1, 100),
            "Fresh processes that --gpuperf-update records (default: 5).", {"default": 5}),
    Setting("calibrate", "N|FILE", None, count_or_file,
            "Measure the rate of false failures and the power of the verdict on N fresh processes of "
            "identical code, or on the runs that an earlier calibration recorded in FILE."),
    Setting("strict", "auto|on|off", "auto", one_of("auto", "on", "off"),
            "Also fail what could not be judged; auto is on where CI or BUILD_NUMBER is set."),
    Setting("pool", "NAME", "", str, "The set of like runners whose baselines count; empty: the GPU's name."),
    Setting("baselines", "DIR", "baselines", str, "Folder of the baselines, beside or above the suites."),
    Setting("kernels", "", "kernels", str, "Folder of the .cu files, beside or above the suites."),
    Setting("lock_timeout", "SECONDS", "600", _SECONDS,
            "How long to wait for another session that uses the device (default: 600)."),
    Setting("child_timeout", "", "600", _SECONDS,
            "Seconds without progress after which a child process is ended."),
    Setting("cooldown", "", "10", _SECONDS,
            "Seconds to wait before measuring again what was measured while unfit."),
    Setting("model_dir", "DIR", None, str, "MLPerf's resnet50_v1.onnx (default: MODEL_DIR)."),
    Setting("data_dir", "DIR", None, str, "ImageNet with val_map.txt (default: DATA_DIR)."),
    Setting("tolerance", "RULE", None, _tolerance,
            'The smallest change worth a failure, "[POOL:] METRIC = 3 %%"; repeatable, wins over the marker.',
            {"action": "append"}),
    Setting("tolerances", "", [], _tolerance, 'Lines of "[POOL:] METRIC = 3 %".'),
    Setting("max_confirm", "N", "5", integer(1, 10_000),
            "Tests that replicas confirm one by one; the next set measures all that are left (default: 5)."),
    Setting("budget", "MINUTES", None, above_zero("minutes", 60),
            "Bound the run's measuring; what does not fit is unmeasured, the most valuable comes first."),
    Setting("max_runs", "", "20", _runs_kept,
            "Runs that a baseline keeps; an append drops the oldest."),
    Setting("require", "", [], one_of("counters", "energy", "peak_memory"),
            "Capabilities whose lack is a fault of the set-up, no skip: counters, energy, peak_memory."),
    Setting("kernel_timeout", "", "60", above_zero("seconds"),
            "Seconds that a kernel may run before its test fails."),
    Setting("quarantine", "", "", str, "The quarantine file; empty: quarantine.toml among the baselines."),
    Setting("against", "REV", None, str,
            "Judge without stored baselines: processes of this checkout and of a git revision alternate."),
    Setting("blocks", "N", None, integer(2, 100),
            "Blocks, of two processes a side, after which a comparison ends (default: 6)."),
    Setting("baselines_from", "REV", None, str,
            "Judge by the baselines, quarantine, tolerances, strictness and waivers that a git revision has, "
            "so that a change cannot rewrite or waive its own."),
    Setting("markdown", "FILE", None, str,
            "Write the summary as Markdown, for a comment on a pull request."),
    Setting("acquit", "auto|off", "auto", one_of("auto", "off"),
            "Before a test is called regressed: run the baseline's own code here and now, in alternation "
            "(auto), or judge by the stored runs alone (off)."),
    Setting("json", "FILE", None, str, "Write the run's results as JSON, for programs."),
    Setting("html", "FILE", None, str, "Write the run's results as a page: one file, which loads nothing."),
    Setting("benchmark_json", "FILE", None, str,
            "Write the times of the run in pytest-benchmark's format, for pytest-benchmark compare."),
    Setting("history", "FOLDER|URL", None, str,
            "Add a JSON Lines file of this run's figures to a folder or, with the extra history, an "
            "fsspec URL; the page's trends and a failure's since are its."),
)  # fmt: skip
JUDGING = ("backend", "strict", "pool", "baselines", "tolerances", "quarantine", "acquit")
"""Settings whose ini keys decide what fails; gpuperf_judge_host_times does, too."""
REPORTS = ("json", "html", "benchmark_json", "history")
HOST_TIMES = "gpuperf_judge_host_times"


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--gpuperf-{name.replace('_', '-')}"


def add_options(parser: pytest.Parser) -> None:
    """Declare every flag and ini key."""
    group = parser.getgroup("gpuperf", "GPU performance regression testing")
    group.addoption(
        "--gpuperf",
        action="store_true",
        help="Measure, judge against the baselines, and fail what regressed.",
    )
    for setting in SETTINGS:
        flag = flag_of(setting.name)
        if setting.flag:
            group.addoption(
                flag, metavar=setting.flag, type=setting.convert, help=setting.help, **setting.more
            )
        if setting.ini is not None:
            help = f"Default of {flag}." if setting.flag else setting.help
            kind: Any = "linelist" if isinstance(setting.ini, list) else "string"
            parser.addini(f"gpuperf_{setting.name}", help, type=kind, default=setting.ini)
    group.addoption(
        "--gpuperf-accept",
        action="store_true",
        help="Beside --gpuperf-baselines-from or -against: let this checkout's own baselines and waivers "
        "count, and list those that were needed. For a maintainer to set.",
    )
    group.addoption(
        "--gpuperf-skip-unchanged",
        action="store_true",
        help="Do not measure launches that are their baseline's own to the bit, on the baseline's software: "
        "they run once, for the test's correctness.",
    )
    parser.addini(
        HOST_TIMES,
        "Judge host times without a GPU too: for a machine that runs nothing else.",
        type="bool",
        default=False,
    )
    group.addoption("--gpuperf-child", type=int, help=argparse.SUPPRESS)


def any_given(config: pytest.Config) -> bool:
    """Return whether one of the flags or ini keys was given, wherever, and is not its default."""
    defaults = {setting.name: setting.more.get("default") for setting in SETTINGS}
    for name, value in vars(config.option).items():
        ours, _, rest = name.partition("_")
        if ours == "gpuperf" and value not in (False, defaults.get(rest)):
            return True
    keys = {f"gpuperf_{s.name}": s.ini for s in SETTINGS if s.ini is not None}
    return host_times(config) or any(config.getini(key) != default for key, default in keys.items())


def host_times(config: pytest.Config) -> bool:
    """Return whether host times are judged; raises pytest.UsageError for a word that is no answer."""
    try:
        return bool(config.getini(HOST_TIMES))
    except (ValueError, pytest.UsageError) as error:
        where = f"{config.inipath}: " if config.inipath else ""
        raise pytest.UsageError(f"{where}{HOST_TIMES}: {error}; say true or false") from None
