"""One line on the terminal that says how long work gets on, rewritten in place and gone when it is done."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import Any

import pytest

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
OFTEN = 0.2  # seconds
_LEAST = 12  # columns: less says nothing


class Live:
    """The line behind pytest's own dots; the cursor stays where pytest left it.

    Nothing at all is written where stdout is no terminal, or one that cannot move its cursor.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        able = os.environ.get("TERM", "dumb") != "dumb" and not hasattr(config, "workerinput")
        self.on = able and bool(getattr(self._reporter, "isatty", False))
        self._stage, self._shown, self._last = "", False, 0.0
        self._begun = time.monotonic()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        """End the stage, and take its line away."""
        self.clear()
        self._stage = ""

    def stage(self, text: str, done: int = 0, total: int = 0) -> bool:
        """Begin a stage, named before what is done in it; return whether it is shown.

        Of ``total`` stages that take as long as each other, ``done`` are over: how long the others may take
        is said, too.
        """
        now = time.monotonic()
        if not done:
            self._begun = now
        left = (now - self._begun) * (total - done) / done if done else 0.0
        self._stage, self._last = f"{text}, {duration(left)} left" if left else text, 0.0
        self.show("")
        return self.on

    def show(self, text: str) -> None:
        """Say what is being done, at most some times a second."""
        now = time.monotonic()
        if self.on and now - self._last >= OFTEN:
            self._last = now
            self._write(" - ".join(filter(None, (self._stage, text))))

    def clear(self) -> None:
        """Take the line away until there is more to say."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        writer: Any = self._reporter._tw  # type: ignore[union-attr]
        room = writer.fullwidth - writer.width_of_current_line - 2
        text = f" {text[:room]}" if text and room >= _LEAST else ""
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            writer._file.write(f"{_SAVE}{_ERASE}{text}{_RESTORE}")
            writer._file.flush()
        self._shown = bool(text)


def duration(seconds: float) -> str:
    """Say roughly how long something takes: 40 s, 5 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
