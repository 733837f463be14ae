"""Records of a GPU's work, as CUPTI writes them."""

from __future__ import annotations

import ctypes

import pytest
from fakecupti import Cupti

from pytest_gpuperf.backends.cuda import activity
from pytest_gpuperf.backends.timer import Work
from pytest_gpuperf.errors import Unavailable


def test_records_are_read_where_cupti_writes_them():
    """Offsets of cupti_activity.h, the same from CUDA 12.0 to 13.5."""
    offsets = {name: getattr(activity.Kernel, name).offset for name, _ in activity.Kernel._fields_}
    assert (offsets["start"], offsets["end"], offsets["device"], offsets["stream"]) == (16, 24, 40, 48)
    assert (offsets["geometry"], offsets["correlation"], offsets["name"]) == (52, 92, 104)
    offsets = {name: getattr(activity.Copy, name).offset for name, _ in activity.Copy._fields_}
    assert (offsets["bytes"], offsets["start"], offsets["end"]) == (8, 16, 24)
    assert (offsets["device"], offsets["stream"]) == (32, 40)


def record(structure, **fields):
    made = structure(**fields)
    return activity.read(ctypes.addressof(made))


def test_kernels_and_copies_are_told_apart_and_others_left_out():
    geometry = (ctypes.c_int32 * 6)(4, 1, 1, 256, 1, 1)
    times = {"start": 5, "end": 9, "device": 1, "stream": 7}
    device, work = record(activity.Kernel, kind=10, geometry=geometry, name=b"add_one", **times)
    assert (device, work) == (1, Work("add_one[4, 1, 1, 256, 1, 1]", 5, 9, 7))
    assert record(activity.Kernel, kind=10, **times)[1].what.startswith("a kernel[")
    _, copied = record(activity.Copy, kind=1, what=(ctypes.c_uint8 * 4)(8, 3, 3, 0), bytes=64, **times)
    _, filled = record(activity.Copy, kind=2, bytes=64, **times)
    assert (copied.what, filled.what) == ("copy 08030300 of 64 bytes", "memset 00000000 of 64 bytes")
    assert record(activity.Copy, kind=5) is None


def test_what_ran_on_the_held_device_is_recorded_in_order(monkeypatch):
    kernels = [(b"late", 30, 0), (b"elsewhere", 20, 1), (b"gpuperf_hold", 10, 0)]
    made = [activity.Kernel(kind=10, name=name, start=at, end=at + 1, device=on) for name, at, on in kernels]
    cupti = Cupti(made)
    monkeypatch.setattr(activity.cupti, "library", lambda: cupti)
    with activity.recorded("gpuperf_hold") as works:
        assert works == []
    assert [(work.what.partition("[")[0], work.held) for work in works] == [
        ("gpuperf_hold", True),
        ("late", False),
    ]
    assert activity._buffers == {}
    assert {("cuptiActivityEnable", kind) for kind in (1, 2, 10)} <= {
        call for call in cupti.calls if "Register" not in call[0]
    }


def test_a_library_that_refuses_says_why_and_is_left_as_it_was(monkeypatch):
    cupti = Cupti([], refuses="cuptiActivityEnable")
    monkeypatch.setattr(activity.cupti, "library", lambda: cupti)
    refused = pytest.raises(Unavailable, match="cuptiActivityEnable says CUPTI_ERROR_NOT_INITIALIZED")
    with refused, activity.recorded("gpuperf_hold"):
        raise AssertionError
    assert not [call for call in cupti.calls if call[0] == "cuptiActivityDisable"]
