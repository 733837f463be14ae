"""Write the reports that a run was asked for: checked before the first test, written after the last."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_gpuperf import __version__
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import check_replaced, replace_file, why_not_written
from pytest_gpuperf.flags import flag_of
from pytest_gpuperf.report.command import judging, measuring, targets
from pytest_gpuperf.session import GpuperfSession

if TYPE_CHECKING:
    from pytest_gpuperf.report.results import Document


def check(session: GpuperfSession) -> None:
    """Find out now whether each report can be written; raises GpuperfError, one sentence."""
    if session.in_worker:
        return
    known: dict[Path, str] = {}
    files = ("markdown",) if session.options.markdown else ()
    for name in (*session.options.reports, *files):
        if name == "history":
            from pytest_gpuperf.report import history

            place = str(session.options.history)
            history.check(place)
            if "://" not in place and (why := why_not_written(Path(place) / "run.jsonl")):
                raise GpuperfError(
                    f"--gpuperf-history={place}: cannot be written ({why}): name another folder"
                )
        else:
            path, flag = _path(session, name), _flag(session, name)
            other = known.setdefault(Path(os.path.realpath(path)), name)
            check_replaced(flag, path, _BEGINNINGS[name])
            if other != name:
                raise GpuperfError(f"{flag} and {_flag(session, other)} name one file: give each its own")


def write(session: GpuperfSession) -> None:
    """Write the reports; what cannot be written after all fails the run."""
    if session.in_worker or not session.options.reports:
        return
    document = document_of(session)
    for name in session.options.reports:
        try:
            _WRITERS[name](session, document)
        except OSError as error:
            text = f"{_flag(session, name)}: not written ({error.strerror or error})"
            session.results.finding("setup", text)
        except GpuperfError as error:
            session.results.finding("setup", str(error))


def document_of(session: GpuperfSession) -> Document:
    """Return the results of the run as they stand."""
    from pytest_gpuperf.report.gather import Gathered, newest
    from pytest_gpuperf.report.results import SCHEMA, Document

    results, options, config = session.results, session.options, session.config
    gathered = Gathered(
        session.project, results.records, results.traces, options.against is None, judging(config)
    )
    reasons = {**results.skipped, **results.why_failed()}
    tests = gathered.tests(results.rows, results.outcomes, reasons)
    surrounds, now = newest(results.records.values()), datetime.now(UTC)
    return Document(
        schema=SCHEMA,
        version=__version__,
        run=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        date=now.isoformat(timespec="seconds"),
        exit_code=results.status,
        strict=options.strict,
        command=measuring(config, *targets(config)) + judging(config),
        commit=str(surrounds.get("commit", "")),
        dirty=bool(surrounds.get("dirty")),
        against=str(options.against or ""),
        baselines_from=str(options.baselines_from or ""),
        machines=gathered.machines,
        tests=tests,
        findings=results.findings,
        notes=list(results.notes),
    )


def _json(session: GpuperfSession, document: Document) -> None:
    from pytest_gpuperf.report.results import render

    replace_file(_path(session, "json"), render(document))


def _benchmark_json(session: GpuperfSession, document: Document) -> None:
    from pytest_gpuperf.report.benchmark import render

    replace_file(_path(session, "benchmark_json"), render(document))


def _html(session: GpuperfSession, document: Document) -> None:
    from pytest_gpuperf.report.page.write import render

    earlier: dict[tuple[str, str, str, str], list[tuple[str, float]]] = {}
    if session.options.history:
        from pytest_gpuperf.report.history import read

        for key, lines in read(session.options.history).items():
            earlier[key] = [(line.date, line.value) for line in lines if line.value is not None]
    replace_file(_path(session, "html"), render(document, earlier))


def _history(session: GpuperfSession, document: Document) -> None:
    from pytest_gpuperf.report.history import append

    append(str(session.options.history), document)


_WRITERS: Mapping[str, Callable[[GpuperfSession, Document], None]] = {
    "json": _json,
    "benchmark_json": _benchmark_json,
    "html": _html,
    "history": _history,
}


_BEGINNINGS = {
    "json": b'"run": "',
    "benchmark_json": b'"machine_info": ',
    "html": b"<!doctype html>",
    "markdown": b"**gpuperf: ",
}


def _path(session: GpuperfSession, name: str) -> Path:
    return session.config.invocation_params.dir / getattr(session.options, name)


def _flag(session: GpuperfSession, name: str) -> str:
    return f"{flag_of(name)}={getattr(session.options, name)}"
