"""What the hooks do with a run: begun, ended, summed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_gpuperf.backends import device_count, is_modelled
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.options import Options
from pytest_gpuperf.session import JUDGED, GpuperfSession

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def check_workers(config: pytest.Config, options: Options) -> None:
    """Gives each xdist worker a device, and refuses what workers would spoil: times and baseline files."""
    workers = len(getattr(config.option, "tx", None) or ())
    if options.active and hasattr(config, "workerinput"):
        _claim_device(int(config.workerinput["workerid"].removeprefix("gw")))
        return
    if not workers or not options.active:
        return
    if options.only_records:
        flag = "--gpuperf-update" if options.update else "--gpuperf-calibrate"
        raise pytest.UsageError(f"{flag} records in one process after the other; leave out -n")
    try:
        devices = device_count(options.backend)
    except Unavailable as error:
        raise pytest.UsageError(str(error)) from None
    if 0 < devices < workers:
        raise pytest.UsageError(
            f"{workers} xdist workers would measure on {devices} device(s) at once; use -n {devices} or fewer"
        )


def _claim_device(number: int) -> None:
    """The worker's own device becomes the only one that it and its children see; before CUDA starts."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[number] if number < len(devices) else str(number)


def check_calibration(options: Options) -> None:
    if options.calibrate is not None:
        from pytest_gpuperf.processes import calibrating

        calibrating.check_count(options)


def calibrate_offline(config: pytest.Config) -> int | None:
    """Instead of a run: judges the recorded runs of a file; None where that is not what was asked for."""
    if not isinstance(config.option.gpuperf_calibrate, Path):
        return None
    from _pytest.main import wrap_session

    from pytest_gpuperf.processes import calibrating

    status = wrap_session(config, lambda config, _: calibrating.judge_file(config))
    return int(status)


def prepare(session: GpuperfSession, items: list[pytest.Item]) -> None:
    """Before the first test: what the gate reads beside the baselines is read, or the run stops here."""
    if not session.options.active or session.options.child is not None:
        return
    from pytest_gpuperf.judging import budgeted, quarantine

    try:
        quarantine.check(session, items)
    except GpuperfError as error:
        raise pytest.UsageError(str(error)) from None
    if session.budget is not None:
        budgeted.sort(session, items)


@contextmanager
def settling(session: GpuperfSession) -> Iterator[None]:
    """Around a run's tests: what a budget held back is confirmed at the end, and reported in any case."""
    from pytest_gpuperf.judging import budgeted

    try:
        yield
    except BaseException:
        budgeted.abandon(session)
        raise
    budgeted.settle(session)


def finish_run(session: GpuperfSession, pytest_session: pytest.Session) -> None:
    """When every test has run: records what was asked for, or names what strict finds amiss in the whole."""
    in_worker = hasattr(session.config, "workerinput")
    if not session.options.active or session.options.child is not None or in_worker:
        return
    complete = not (pytest_session.shouldstop or pytest_session.shouldfail)
    from pytest_gpuperf.judging import gate
    from pytest_gpuperf.processes import against, calibrating, recording

    try:
        if session.options.update:
            recording.record(session, pytest_session.items)
        elif session.options.calibrate:
            calibrating.record(session, pytest_session.items)
        elif session.options.revisions.against:
            against.close(session, session.options.revisions.against)
        else:
            gate.close(session, complete)
    except GpuperfError as error:
        session.finding("wrong", str(error))


def summary(session: GpuperfSession, reporter: TerminalReporter) -> None:
    """The table and what to do next, at the end of every measured run."""
    if not session.options.active or session.options.child is not None:
        return
    from pytest_gpuperf.report.terminal import summarise

    devices = {
        f"{record.environment.get('device_name', 'no device')} ({record.device.get('backend')})"
        for record in session.records.values()
    }
    title = ", ".join(sorted(devices)) or "nothing was measured"
    summarise(reporter, title, session.rows, (*session.notes, *session.findings, *_next_steps(session)))


def _next_steps(session: GpuperfSession) -> list[str]:
    """Lines that say what the figures leave open: how to arm the gate, what an improvement hides."""
    from pytest_gpuperf.judging.verdict import unseen_loss

    lines = []
    paths = " ".join(session.config.args)
    update = f"pytest {paths} --gpuperf --gpuperf-update"
    outcomes = {row.verdict.outcome for row in session.rows}
    if any(is_modelled(record.device) for record in session.records.values()):
        lines.append("Emulated: times are this CPU's, shown and never judged; counters are modelled.")
    if session.options.only_records or session.options.revisions.against:
        return lines
    if moved := [row for row in session.rows if row.verdict.outcome is Outcome.ENVIRONMENT_MOVED]:
        tests = " ".join(dict.fromkeys(row.command.removesuffix(" --gpuperf")[7:] for row in moved))
        lines.append(
            "The machine or its software moved, and the code did not. To take its figures\n"
            f"  as the new baseline:\n  pytest {tests} --gpuperf --gpuperf-update"
        )
    for row in session.rows:
        if row.verdict.outcome is Outcome.IMPROVED and (loss := unseen_loss(row.metric, row.verdict)):
            lines.append(
                f"{row.test} improved: until its baseline is updated,\n  a later loss of "
                f"{100 * loss:.1f} % would pass unseen. To update it:\n  {row.command} --gpuperf-update"
            )
    if Outcome.NO_BASELINE in outcomes and not outcomes & set(JUDGED):
        lines.append(f"Nothing was judged, since there is no baseline yet. To arm the gate:\n  {update}")
    elif Outcome.NO_BASELINE in outcomes:
        lines.append(f"Some metrics have no baseline. To record only those:\n  {update}=new")
    return lines


def header(session: GpuperfSession) -> list[str] | None:
    """The run's settings, and the false reds that the last calibration lets one expect."""
    if not session.options.active or session.options.child is not None:
        return None
    from pytest_gpuperf.processes import calibrating

    options = session.options
    strict = "on" if options.strict else "off"
    settings = f"gpuperf: backend {options.backend}, strict {strict}, {_compared_with(options)}"
    return [settings, *calibrating.header(session)]


def _compared_with(options: Options) -> str:
    revisions = options.revisions
    if revisions.against:
        return f"against {revisions.against} in {revisions.blocks} blocks"
    at = f" at {revisions.baselines_from}" if revisions.baselines_from else ""
    return f"baselines {options.baselines}{at}"
