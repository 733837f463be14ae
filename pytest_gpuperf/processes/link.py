"""The parent's end of the socket to a child: tell it what to run, and take in what it says."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OVER = {"event": "over"}
"""What a child says last: it has reported everything, and only has to end."""
PROGRESS = {"event": "progress"}
WAITING = {"event": "waiting"}
_LOOK = 0.5  # seconds after which it is looked whether the child still lives


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may make no progress, also while it waits for a lock; its ``end`` in any case.

    In seconds; ``end`` is one of ``time.monotonic``.
    """

    without_progress: float
    for_a_lock: float
    end: float | None = None


def exchange(
    link: socket.socket, process: subprocess.Popen[bytes], told: bytes, patience: Patience
) -> Iterator[dict[str, Any]]:
    """Tell a child its task and yield its messages, until it says OVER, closes its end or is no more.

    Its own end counts, since a process that it left behind may keep the socket open. Everything that it says
    is progress, so that it is not silence that ends it. Raises TimeoutError where patience is over.
    """
    link.setblocking(False)
    pending, limit = b"", time.monotonic() + patience.without_progress
    while True:
        _check(patience, limit)
        ended = process.poll() is not None
        ready, free, _ = select.select([link], [link] if told else [], [], 0 if ended else _LOOK)
        try:
            if free:
                told = told[link.send(told) :]
            chunk = link.recv(1 << 16) if ready else b""
        except ConnectionError:
            return  # one that ended before it had read its task: its exit code and last words say why
        if not chunk:
            if ready or ended:
                return
            continue
        *lines, pending = (pending + chunk).split(b"\n")
        for message in map(json.loads, lines):
            if message == OVER:
                return
            wait = patience.for_a_lock if message == WAITING else 0
            limit = time.monotonic() + patience.without_progress + wait
            yield message


def _check(patience: Patience, limit: float) -> None:
    now = time.monotonic()
    if patience.end is not None and now >= patience.end:
        raise TimeoutError("was ended with the run's budget (--gpuperf-budget)")
    if now > limit:
        raise TimeoutError(
            f"made no progress for {patience.without_progress:g} s and was ended "
            "(ini key gpuperf_child_timeout)"
        )
