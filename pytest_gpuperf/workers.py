"""Give each worker of pytest-xdist a device, and refuse what workers would spoil."""

from __future__ import annotations

import os

import pytest

from pytest_gpuperf.backends import device_count
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.options import Options


def check_workers(config: pytest.Config, options: Options) -> None:
    """Claim a worker's device; in the controller raise pytest.UsageError for workers that would collide."""
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
    """Make the worker's device the only one that it and its children see, before CUDA starts."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[number] if number < len(devices) else str(number)
