"""Try the verdict on runs of identical code, --gpuperf-calibrate: recorded now, or read from a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_gpuperf.errors import BaselineError, GpuperfError
from pytest_gpuperf.files import local_folder
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.modes.record import relative
from pytest_gpuperf.modes.runs import fresh_runs
from pytest_gpuperf.options import Options, owner_of
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.calibration import calibrate, runs_needed
from pytest_gpuperf.rules.tolerances import Tolerances
from pytest_gpuperf.rules.trial import RecordedRun, RecordedTest
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.storage.calibrations import append_run, read_result, read_runs, results, save_result
from pytest_gpuperf.storage.documents import explained

_GPUS = ("GPU-", "MIG-")
"""Prefixes of NVIDIA UUIDs; GPU calibrations are not shown on machines without a GPU."""


class Calibrating(Mode):
    """A run that records runs of identical code.

    This session is the first process, which is not kept: on a cold machine it is slower than the rest.
    """

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Record the runs that were asked for in a file, each as it ends, and calibrate with them."""
        results, options = self._results, self._options
        config = self._session.config
        here, count = config.invocation_params.dir, options.calibrate
        assert isinstance(count, int)
        measured = results.passed(items)
        if not measured:
            results.finding("setup", "nothing was measured that could be calibrated")
            return
        folder = self._folder(measured)
        path = local_folder(config.rootpath) / f"runs-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"
        self._session.progress(f"gpuperf: each run is written to {relative(path, here)} as it ends")
        by_nodeid = {item.nodeid: item for item in measured}
        runs: list[RecordedRun] = []
        for found in fresh_runs(self._session, measured, count, lambda record: record):
            runs.append(self._recorded(by_nodeid, found))
            append_run(path, runs[-1])
        results.note(f"Recorded {len(runs)} runs; to judge them again without measuring:")
        results.note(f"  pytest --gpuperf-calibrate={relative(path, here)}")
        for text in _conclude(runs, options.runs, folder, here):
            results.note(text)

    def _recorded(self, items: Mapping[str, pytest.Item], found: Mapping[str, Record]) -> RecordedRun:
        options, run = self._options, {}
        for nodeid, record in found.items():
            pool, marker = self._project.pool(record.device), test_options(items[nodeid]).tolerance
            rules = Tolerances(options.tolerance, marker, options.tolerances)
            stated = {m.metric.name: rules.stated(m.metric, pool) for m in record.measurements}
            tolerances = {name: value for name, value in stated.items() if value is not None}
            run[str(self._project.key(nodeid))] = RecordedTest(pool, tolerances, record)
        return run

    def _folder(self, items: Sequence[pytest.Item]) -> Path:
        folders = sorted({self._project.store(item.path).folder for item in items})
        if len(folders) > 1:
            raise GpuperfError(
                f"the suites belong to different baselines ({folders[0]} and {folders[1]}): "
                "calibrate one project at a time"
            )
        return folders[0]


def check_count(options: Options) -> None:
    """Raise pytest.UsageError for fewer runs than one trial takes."""
    needed = runs_needed(options.runs)
    if isinstance(options.calibrate, int) and options.calibrate < needed:
        raise pytest.UsageError(
            f"--gpuperf-calibrate={options.calibrate}: one trial takes {needed} runs ({options.runs} of a "
            f"baseline, a screen and {needed - options.runs - 1} replicas); give {needed} or more, better 60"
        )


def judge_file(session: GpuperfSession) -> int:
    """Calibrate with the runs of a file, with nothing measured or collected; return pytest's exit code.

    Raises pytest.UsageError, one sentence for a file that cannot be used.
    """
    config, path = session.config, session.options.calibrate
    assert isinstance(path, Path)
    here, baselines = config.invocation_params.dir, session.options.baselines
    ini = config.inipath.parent if config.inipath else here
    owner = owner_of(here, baselines, ini, config.rootpath)
    try:
        texts = _conclude(read_runs(here / path), session.options.runs, owner / baselines, here)
    except GpuperfError as error:
        raise pytest.UsageError(str(error)) from None
    for text in texts:
        session.progress(text)
    return int(pytest.ExitCode.OK)


def header(session: GpuperfSession) -> list[str]:
    """Say what the last calibrations let one expect of this run, and which file cannot be read."""
    config, options = session.config, session.options
    here = config.invocation_params.dir
    asked = [here / argument.partition("::")[0] for argument in config.args]
    starts = [path if path.is_dir() else path.parent for path in asked]
    folders = {session.project.baselines_root(start / "suite.py") / options.baselines for start in starts}
    lines: list[str] = []
    for folder in sorted(folders):
        try:
            lines += [_expected(session, path) for path in results(folder, options.pool)]
        except BaselineError as error:
            lines.append(str(error))
    return [f"gpuperf: {line}" for line in lines if line]


def _expected(session: GpuperfSession, path: Path) -> str:
    """Return the header's line of a calibration, "" for a GPU's on a machine without one."""
    from pytest_gpuperf.report.calibration import expectation

    try:
        found = read_result(path)
    except BaselineError as error:
        return str(error)
    of_gpus = any(uuid.startswith(_GPUS) for uuid in found.devices)
    return expectation(found) if not of_gpus or session.expects_device() else ""


def _conclude(runs: Sequence[RecordedRun], baseline_runs: int, folder: Path, here: Path) -> list[str]:
    """Calibrate, store the result in ``folder``, and return a text for each pool."""
    from pytest_gpuperf.report.calibration import report, write_plot

    needed = runs_needed(baseline_runs)
    found = calibrate(runs, baseline_runs)
    if not found:
        raise GpuperfError(
            f"no test was measured in {needed} runs or more, which one trial takes, on a machine fit to "
            f"measure ({len(runs)} runs in all): record more with --gpuperf-calibrate={max(60, needed)}"
        )
    texts = []
    for calibration in found:
        path = save_result(folder, calibration)
        lines = [report(calibration), f"Stored in {relative(path, here)}"]
        plot = path.with_suffix(".png")
        with explained(plot, "written"):
            lines.append(write_plot(calibration, plot) or f"Plot in {relative(plot, here)}")
        texts.append("\n".join(lines))
    return texts
