"""Make the representation of a failed test: its text where pytest tells of it, its reason in the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.records import Payload
from pytest_gpuperf.report.message import reason


def failure(text: str, why: str, path: Path, line: int) -> Any:
    """Return a report's ``longrepr`` that prints ``text`` and gives ``why``, one line, as the reason.

    Short summary lines, JUnit's message, ``--tb=line`` and annotations take the reason and the place.
    """
    try:
        pytest.fail(text, pytrace=False)
    except pytest.fail.Exception as failed:
        found: Any = pytest.ExceptionInfo.from_exception(failed).getrepr(style="value")
    crash = found.reprcrash
    crash.path, crash.lineno, crash.message = str(path), line, why.strip().partition("\n")[0]
    return found


def why(payload: Payload, text: str) -> str:
    """Return why a test failed, in one line: its metrics, or what else ``text`` begins with."""
    failing = [row for row in payload.rows if row.cause]
    return reason(failing) if failing and not text.startswith("not accepted") else text.partition("\n")[0]
