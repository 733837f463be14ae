"""--gpuperf-calibrate: runs of identical code are recorded, or read, and the verdict is tried on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_gpuperf.errors import BaselineError, GpuperfError
from pytest_gpuperf.files import local_folder
from pytest_gpuperf.options import Options, owner_of, test_options
from pytest_gpuperf.processes.calibration import calibrate, runs_needed
from pytest_gpuperf.processes.recording import fresh_runs
from pytest_gpuperf.processes.trial import RecordedRun, RecordedTest
from pytest_gpuperf.records import Record
from pytest_gpuperf.session import SESSION, GpuperfSession
from pytest_gpuperf.storage.calibration_files import append_run, read_result, read_runs, results, save_result

_GPUS = ("GPU-", "MIG-")  # as NVIDIA's UUIDs begin; what was found on one says nothing where there is none


def check_count(options: Options) -> None:
    """Raises pytest.UsageError for fewer runs than one leave-one-out trial takes."""
    needed = runs_needed(options.runs)
    if isinstance(options.calibrate, int) and options.calibrate < needed:
        raise pytest.UsageError(
            f"--gpuperf-calibrate={options.calibrate}: one trial takes {needed} runs ({options.runs} of a "
            f"baseline, a screen and {needed - options.runs - 1} replicas); give {needed} or more, better 60"
        )


def record(session: GpuperfSession, items: Sequence[pytest.Item]) -> None:
    """Records the runs that were asked for in a file, each as it ends, and judges them.

    This session was the first process, which is not kept: on a cold machine it is slower than the rest.
    """
    count = session.options.calibrate
    assert isinstance(count, int)
    measured = [i for i in items if i.nodeid in session.records and session.outcomes[i.nodeid] == "passed"]
    if not measured:
        session.finding("setup", "nothing was measured that could be calibrated")
        return
    folder = _folder(session, measured)
    path = _new_file(session.config.rootpath)
    session.progress(f"gpuperf: each run is written to {_relative(session, path)} as it ends")
    by_nodeid = {item.nodeid: item for item in measured}
    runs: list[RecordedRun] = []
    for found in fresh_runs(session, measured, count):
        runs.append(_recorded(session, by_nodeid, found))
        append_run(path, runs[-1])
    session.note(f"Recorded {len(runs)} runs; to judge them again without measuring:")
    session.note(f"  pytest --gpuperf-calibrate={_relative(session, path)}")
    for text in _conclude(session, runs, folder):
        session.note(text)


def judge_file(config: pytest.Config) -> int:
    """Judges the runs of a file, with nothing measured or collected; pytest's exit code.

    Raises pytest.UsageError with one sentence for a file that cannot be used.
    """
    session = config.stash[SESSION]
    path = session.options.calibrate
    assert isinstance(path, Path)
    here = config.invocation_params.dir
    owner = owner_of(here, session.options.baselines, config.inipath.parent if config.inipath else here)
    try:
        runs = read_runs(here / path)
        texts = _conclude(session, runs, owner / session.options.baselines)
    except GpuperfError as error:
        raise pytest.UsageError(str(error)) from None
    for text in texts:
        session.progress(text)
    return int(pytest.ExitCode.OK)


def header(session: GpuperfSession) -> list[str]:
    """What the last calibrations let one expect of this run; a file that cannot be read is said."""
    from pytest_gpuperf.report.calibration import expectation

    config, options = session.config, session.options
    here = config.invocation_params.dir
    asked = [here / argument.partition("::")[0] for argument in config.args]
    starts = [path if path.is_dir() else path.parent for path in asked]
    folders = {session.owner(start / "suite.py", options.baselines) / options.baselines for start in starts}
    lines = []
    for path in (path for folder in sorted(folders) for path in results(folder, options.pool)):
        try:
            found = read_result(path)
        except BaselineError as error:
            lines.append(f"gpuperf: {error}")
            continue
        if not any(uuid.startswith(_GPUS) for uuid in found.devices) or session.expects_cuda():
            lines.append(f"gpuperf: {expectation(found)}")
    return lines


def _conclude(session: GpuperfSession, runs: Sequence[RecordedRun], folder: Path) -> list[str]:
    """Judges the runs, stores what came of it, and says it: a text for each pool."""
    from pytest_gpuperf.report.calibration import report
    from pytest_gpuperf.report.plot import write_plot

    needed = runs_needed(session.options.runs)
    found = calibrate(runs, session.options.runs)
    if not found:
        raise GpuperfError(
            f"no test was measured in {needed} runs or more, which one trial takes, on a machine fit to "
            f"measure ({len(runs)} runs in all): record more with --gpuperf-calibrate={max(60, needed)}"
        )
    texts = []
    for calibration in found:
        path = save_result(folder, calibration)
        lines = [report(calibration), f"Stored in {_relative(session, path)}"]
        plot = path.with_suffix(".png")
        lines.append(write_plot(calibration, plot) or f"Plot in {_relative(session, plot)}")
        texts.append("\n".join(lines))
    return texts


def _recorded(
    session: GpuperfSession, items: Mapping[str, pytest.Item], found: Mapping[str, Record]
) -> RecordedRun:
    run = {}
    for nodeid, record in found.items():
        pool, marker = session.pool(record), test_options(items[nodeid]).tolerance
        tolerances = {}
        for metric in (measurement.metric for measurement in record.measurements):
            stated = session.options.rules.tolerance(marker, metric, pool)
            if stated is not None:
                tolerances[metric.name] = stated
        run[str(session.key(nodeid))] = RecordedTest(pool, tolerances, record)
    return run


def _folder(session: GpuperfSession, items: Sequence[pytest.Item]) -> Path:
    folders = sorted({session.store(item.path).folder for item in items})
    if len(folders) > 1:
        raise GpuperfError(
            f"the suites belong to different baselines ({folders[0]} and {folders[1]}): "
            "calibrate one project at a time"
        )
    return folders[0]


def _new_file(root: Path) -> Path:
    """A new file for runs, in a folder that keeps itself out of version control."""
    return local_folder(root) / f"runs-{datetime.now(UTC):%Y%m%dT%H%M%S}.jsonl"


def _relative(session: GpuperfSession, path: Path) -> Path:
    here = session.config.invocation_params.dir
    return path.relative_to(here) if path.is_relative_to(here) else path
