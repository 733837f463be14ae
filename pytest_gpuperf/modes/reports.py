"""Finish the report of a test's phase in this process: our errors in one sentence, and its verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_gpuperf.errors import GpuperfError, NotFit, Unavailable
from pytest_gpuperf.records import Cause, Payload, attach

RESULT = pytest.StashKey[Payload]()
_PACKAGE = Path(__file__).parent.parent


def finish_report(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    left_out: bool,
    must_be_there: Callable[[], bool],
) -> None:
    """Shorten our errors, skip tests whose requirements are missing, and attach the verdicts.

    ``left_out``: the budget was spent before the test had measured everything. ``must_be_there`` returns
    whether what is missing fails the test instead.
    """
    error = call.excinfo.value if call.excinfo else None
    payload = item.stash.get(RESULT, Payload()) if report.when == "call" else Payload()
    if isinstance(error, GpuperfError):
        if isinstance(error, Unavailable) and not must_be_there():
            path, line = _location(item)
            report.outcome, report.longrepr = "skipped", (str(path), line, f"Skipped: {error}")
            return
        text = "\n".join((f"{_where(item, call)}: {error}", *getattr(error, "__notes__", ())))
        report.outcome, report.longrepr = "failed", text
        payload = replace(payload, cause=_cause(error))
    if payload.cause and hasattr(report, "wasxfail"):
        # The mark was made for something else: what a verdict fails, expected= and until= may excuse.
        del report.wasxfail
        report.outcome, report.longrepr = "failed", str(error)
    if report.when == "call" and left_out:
        payload = replace(payload, left_out=True)
    if payload != Payload():
        attach(report, payload)


def _cause(error: GpuperfError) -> Cause:
    if isinstance(error, Unavailable):
        return "setup"
    return "infrastructure" if isinstance(error, NotFit) else "wrong"


def _where(item: pytest.Item, call: pytest.CallInfo[None]) -> str:
    """Return the suite's line that met the error: the last one outside this package and its libraries."""
    assert call.excinfo is not None
    ours = [e for e in call.excinfo.traceback if _is_users(Path(str(e.path)))]
    path, line = (Path(str(ours[-1].path)), ours[-1].lineno + 1) if ours else _location(item)
    root = item.config.rootpath
    return f"{path.relative_to(root) if path.is_relative_to(root) else path}:{line}"


def _is_users(path: Path) -> bool:
    return _PACKAGE not in path.parents and "site-packages" not in path.parts


def _location(item: pytest.Item) -> tuple[Path, int]:
    return item.path, (item.location[1] or 0) + 1
