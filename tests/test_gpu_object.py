"""The object behind the ``gpu`` fixture: its arrays, where they came from, and giving them back."""

import gc

import numpy as np
import pytest

from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.errors import GpuperfError


class HostArray:
    """An array of the pretended device; like PyCUDA's it compares elementwise and has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host):
        self.host, self.shape, self.dtype, self.nbytes = host, host.shape, host.dtype, host.nbytes

    def __eq__(self, other):
        return self.host == other.host

    def get(self):
        return self.host


class HostDevice:
    name, device_name, uuid, compute_capability = "host", "Host Device", "HOST-0", (9, 0)
    context, stream = "context", "stream"

    def __init__(self):
        self.freed, self.calls = [], []

    def empty(self, shape, dtype):
        return HostArray(np.empty(shape, dtype))

    def to_device(self, host):
        assert host.flags.c_contiguous
        return HostArray(host)

    def free(self, array):
        self.freed.append(array.shape)

    def synchronize(self):
        self.calls.append("synchronize")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def gpu():
    return Gpu(HostDevice())


def test_it_shows_the_device(gpu):
    assert (gpu.name, gpu.backend, gpu.uuid) == ("Host Device", "host", "HOST-0")
    assert (gpu.compute_capability, gpu.context, gpu.stream) == ((9, 0), "context", "stream")
    gpu.synchronize()
    gpu.close()
    assert gpu.device.calls == ["synchronize", "close"]


def test_empty_takes_an_int_or_a_shape(gpu):
    assert gpu.empty(5).shape == (5,)
    assert gpu.empty((np.int64(2), 3), np.int16).shape == (2, 3)
    assert gpu.empty([2, 3]).dtype == np.float32
    assert gpu.empty(()).shape == ()


def test_random_is_the_same_every_time_and_differs_by_seed(gpu):
    first, again, other = (gpu.random(1000, seed=seed).get() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # PCG64's own stream, so that a baseline's inputs stay what they were.
    assert np.array_equal(first, np.random.Generator(np.random.PCG64(1)).random(1000, np.float32))


def test_what_is_drawn_again_cannot_have_been_written_to(gpu):
    assert gpu.random(1000, seed=1).get() is gpu.random(1000, seed=1).get()
    with pytest.raises(ValueError, match="read-only"):
        gpu.random(1000, seed=1).get()[0] = 0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_random_floats_fill_zero_to_one(gpu, dtype):
    values = gpu.random(20000, dtype).get()
    assert values.dtype == dtype
    for part in (values.real, values.imag) if values.dtype.kind == "c" else (values,):
        assert part.min() >= 0
        assert part.max() < 1
        assert abs(part.astype(float).mean() - 0.5) < 0.02


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", "i8"])
def test_random_integers_are_0_to_99(gpu, dtype):
    values = gpu.random(20000, dtype).get()
    assert values.dtype == dtype
    assert (values.min(), values.max()) == (0, 99)


def test_random_booleans_are_fair(gpu):
    values = gpu.random(20000, bool).get()
    assert values.dtype == bool
    assert abs(values.mean() - 0.5) < 0.02


def test_to_device_makes_it_contiguous_and_native(gpu):
    host = np.arange(6, dtype=">i4").reshape(2, 3).T
    array = gpu.to_device(host)
    assert array.dtype == np.int32
    assert np.array_equal(array.get(), host)
    assert gpu.to_device(np.array(3.5)).shape == ()


def test_origins_tell_the_arrays_apart(gpu):
    made = [gpu.empty(3), gpu.random(3, seed=7), gpu.to_device(np.ones(3))]
    assert [gpu.origin(array) for array in made] == ["empty", "random(seed=7)", "to_device"]
    assert gpu.origin(np.ones(3)) is None
    assert gpu.origin(None) is None


def test_arrays_of_the_same_contents_say_so_and_others_do_not(gpu):
    ramp = np.arange(12, dtype=np.int32)
    same = [gpu.to_device(ramp), gpu.to_device(ramp.copy())]
    others = [
        gpu.to_device(ramp[::-1].copy()),
        gpu.to_device(ramp.reshape(3, 4)),
        gpu.to_device(ramp.view(np.float32)),
        gpu.random(12, np.int32, seed=1),
        gpu.random(12, np.int32, seed=2),
        gpu.random(13, np.int32, seed=1),
        gpu.empty(12, np.int32),
    ]
    assert same[0].contents == same[1].contents
    assert len({array.contents for array in (*same, *others)}) == 1 + len(others)


def test_remembering_keeps_nothing_alive(gpu):
    for _ in range(100):
        gpu.empty(3)
    gc.collect()
    mark = gpu.mark()
    assert gpu.free_since(0) == 0
    assert gpu.device.freed == []
    assert mark == gpu.mark()


def test_free_since_frees_what_is_newer_and_alive(gpu):
    module_wide = gpu.empty(1)
    mark = gpu.mark()
    kept = gpu.empty((2, 2))
    gpu.empty(3)  # dropped at once
    assert gpu.free_since(mark) == kept.nbytes
    assert gpu.device.freed == [(2, 2)]
    assert gpu.origin(module_wide) == "empty"
    assert gpu.free_since(mark) == 0


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda gpu: gpu.empty((2, 0)), "Shape (2, 0) has a dimension below 1"),
        (lambda gpu: gpu.empty(-1), "Shape -1 has a dimension below 1"),
        (lambda gpu: gpu.empty(2.5), "a tuple of integers; 2.5 was given"),
        (lambda gpu: gpu.empty("22"), "a tuple of integers; '22' was given"),
        (lambda gpu: gpu.empty(2, "float33"), "'float33' is not a NumPy dtype"),
        (lambda gpu: gpu.empty(2, object), "dtype object has no counterpart on a GPU"),
        (lambda gpu: gpu.empty(2, "U8"), "has no counterpart on a GPU"),
        (lambda gpu: gpu.empty(2, np.longdouble), "has no counterpart on a GPU"),
        (lambda gpu: gpu.random(2, [("x", "f4")]), "gpu.random knows no values of dtype"),
        (lambda gpu: gpu.random(2, seed=-1), "A seed is an integer, 0 or more; -1 was given"),
        (lambda gpu: gpu.random(2, seed=1.5), "A seed is an integer"),
        (lambda gpu: gpu.to_device([1, 2]), "takes a NumPy array, not a list"),
        (lambda gpu: gpu.to_device(np.array([None])), "dtype object has no counterpart"),
        (lambda gpu: gpu.to_device(np.empty((0, 3))), "empty array of shape (0, 3)"),
    ],
)
def test_what_it_refuses(gpu, ask, says):
    with pytest.raises(GpuperfError) as caught:
        ask(gpu)
    assert says in str(caught.value)
