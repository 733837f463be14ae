"""The child's side of a child process: reports go to the parent, and nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import Any

import pytest


class ChildReporter:
    """The child's side: sends each report to the parent, and ends the process when the parent is gone."""

    def __init__(self, config: pytest.Config, descriptor: int) -> None:
        self.config = config
        self.link = socket.socket(fileno=descriptor)
        self.link.set_inheritable(False)
        # The parent's one line, before anything else happens here.
        self.batches: dict[str, dict[str, int]] = json.loads(self.link.makefile("rb").readline() or b"{}")
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        self.link.sendall(json.dumps(message, default=str).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.send({"report": data})

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        phase = sys.modules.get("pytest_gpuperf.mlperf.phase")
        if phase is not None and phase.poisoned():
            os._exit(1)  # LoadGen would abort an ordinary exit; every report is sent

    def _end_with_parent(self) -> None:
        while self.link.recv(1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)
