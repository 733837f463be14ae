"""Finding kernels in a folder and giving them their launch geometry."""

from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.signature import Unresolved
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.measurement import Measurement, Metric, Run

SOURCE = """\
extern "C" __global__ void scale(float* x, int n) {}
extern "C" __global__ void nothing() {}
extern "C" __global__ void gather(const float* src, const int* index, float* dst) {}
"""


class Recorder:
    """A backend that writes down what it is asked to compile and to launch."""

    name, device_name = "recorder", "Recorder"

    def __init__(self):
        self.loaded, self.launched = [], []

    def address(self, argument):
        return 0x1000 if isinstance(argument, Array) else None

    def load(self, file, options=()):
        self.loaded.append((file.path.name, tuple(options)))
        return self

    def code_hash(self, name):
        return f"hash of {name}"

    def signature(self, name):
        raise Unresolved("no such name")

    def prepare(self, *call):
        return lambda: self.launched.append(call)


class Array:
    def __init__(self, contents="ramp", dtype=np.float32, base=None):
        self.shape, self.dtype, self.nbytes = (4,), np.dtype(dtype), 16
        self.contents, self.base = contents, base


@pytest.fixture
def backend():
    return Recorder()


@pytest.fixture
def kernels(tmp_path, backend):
    (tmp_path / "scale.cu").write_text(SOURCE)
    return Kernels(tmp_path, backend)


def test_a_launch_reaches_the_backend_checked_in_3_dimensions(kernels, backend):
    array, stream = Array(), SimpleNamespace(handle=7)
    kernels["scale.cu"].scale[(8, 4), 32](array, 4)
    kernels["scale.cu"].scale[8, (32, 2, 1), 1024, stream](array, 4)
    kernels["scale.cu"].scale[np.int64(8), 32, 16](array, 4)
    assert backend.launched == [
        ("scale", Geometry((8, 4, 1), (32, 1, 1), 0, None), [array, np.int32(4)]),
        ("scale", Geometry((8, 1, 1), (32, 2, 1), 1024, stream), [array, np.int32(4)]),
        ("scale", Geometry((8, 1, 1), (32, 1, 1), 16, None), [array, np.int32(4)]),
    ]
    assert all(type(call[-1][1]) is np.int32 for call in backend.launched)


def test_a_file_is_compiled_once_per_options_at_first_launch(kernels, backend):
    launch = kernels["scale.cu"].nothing[1, 1]
    assert backend.loaded == []
    launch()
    launch()
    kernels["scale.cu"]["nothing"][1, 1]()
    kernels["scale.cu", "-DTILE=16"].nothing[1, 1]()
    assert backend.loaded == [("scale.cu", ()), ("scale.cu", ("-DTILE=16",))]


def test_bind_checks_once_and_launches_each_time(kernels, backend):
    array = Array()
    enqueue = kernels["scale.cu"].scale[1, 32].bind(array, 4)
    assert backend.launched == []
    enqueue()
    enqueue()
    assert len(backend.launched) == 2
    with pytest.raises(KernelError, match="takes 2 arguments, 1 given"):
        kernels["scale.cu"].scale[1, 32].bind(array)


def test_bind_lets_a_backend_prepare_the_launch(kernels, backend):
    prepared = []
    backend.prepare = lambda *launch: prepared.append(launch) or (lambda: backend.launched.append("prepared"))
    enqueue = kernels["scale.cu"].scale[2, 32, 16].bind(Array(), 4)
    enqueue()
    enqueue()
    assert [launch[:2] for launch in prepared] == [("scale", Geometry((2, 1, 1), (32, 1, 1), 16))]
    assert backend.launched == ["prepared"] * 2


def test_a_launch_says_what_it_is(kernels, tmp_path):
    launch = kernels["scale.cu", "-O1"].scale[(2, 3), 32, 64]
    assert (launch.name, launch.geometry) == ("scale", Geometry((2, 3, 1), (32, 1, 1), 64))
    assert (launch.file.path, launch.file.options) == (tmp_path / "scale.cu", ("-O1",))
    assert launch.code_hash == "hash of scale"
    assert launch.declaration.line == 1
    assert repr(launch) == "<launch of scale of scale.cu, grid (2, 3, 1), block (32, 1, 1)>"


def test_the_work_hash_is_of_all_that_the_device_is_told(kernels, backend, monkeypatch):
    scale = kernels["scale.cu"].scale
    same = scale[2, 32].work_hash(Array(), 2.0, 4)
    assert same == scale[(2, 1, 1), 32, 0].work_hash(Array(), np.float32(2.0), np.int32(4))
    others = [scale[3, 32], scale[2, 64], scale[2, 32, 16]]
    hashes = {
        same,
        *(launch.work_hash(Array(), 2.0, 4) for launch in others),
        scale[2, 32].work_hash(Array(), 2.0, 5),
    }
    assert len(hashes) == 5
    monkeypatch.setattr(backend, "code_hash", lambda name: f"another hash of {name}")
    assert scale[2, 32].work_hash(Array(), 2.0, 4) not in hashes
    monkeypatch.setattr(backend, "code_hash", lambda name: None)
    assert scale[2, 32].work_hash(Array(), 2.0, 4) is None


def test_the_work_hash_is_of_the_inputs_contents(kernels):
    gather = kernels["scale.cu"].gather[2, 32]

    def work(index="sorted", **arrays):
        given = {"src": Array(), "dst": Array("nothing"), **arrays}
        return gather.work_hash(given["src"], Array(index, np.int32), given["dst"])

    assert work("sorted") == work("sorted") != work("shuffled")
    one = Array()
    assert work(src=one, dst=one) != work(src=Array(), dst=Array()), "in place is another work"


def test_the_work_of_inputs_that_nobody_knows_is_no_ones_own(kernels):
    gather, index, dst = kernels["scale.cu"].gather[2, 32], Array("sorted", np.int32), Array("nothing")
    for unknown in (Array(None), object.__new__(Array)):
        vars(unknown).setdefault("shape", (4,))
        work = gather.work_hash(unknown, index, dst)
        assert work.endswith("?")
        metric = Metric("gather", "s", "lower", "noisy", "device_time")
        assert not Measurement(metric, {}, (1.0,), work).same_code([Run((1.0,), {}, work)])


def test_a_launch_makes_only_what_it_may_write_unknown(kernels):
    src, index, whole = Array(), Array("sorted", np.int32), Array()
    kernels["scale.cu"].gather[2, 32](src, index, view := Array(base=whole))
    assert (src.contents, index.contents) == ("ramp", "sorted")
    assert (view.contents, whole.contents) == (None, None)


def test_a_gpu_object_stands_for_its_backend(tmp_path, backend):
    from pytest_gpuperf.backends.gpu import Gpu

    (tmp_path / "scale.cu").write_text(SOURCE)
    Kernels(tmp_path, Gpu(backend))["scale.cu"].nothing[1, 1]()
    assert len(backend.launched) == 1


def test_unknown_files_and_kernels_list_what_is_there(kernels, tmp_path, backend):
    with pytest.raises(
        KernelError, match=r"no kernel file 'scales.cu' .* scale.cu \(did you mean 'scale.cu'\?\)"
    ):
        kernels["scales.cu"]
    with pytest.raises(
        KernelError, match=r"has no kernel 'scal'\. It declares gather, nothing, scale; did you mean scale\?"
    ):
        _ = kernels["scale.cu"].scal
    with pytest.raises(KernelError, match=r"nowhere does not exist"):
        Kernels(tmp_path / "nowhere", backend)["a.cu"]


def test_a_file_that_is_no_text_is_one_sentence(kernels, tmp_path):
    (tmp_path / "binary.cu").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KernelError, match=r"binary.cu cannot be read as UTF-8 text"):
        kernels["binary.cu"]


@pytest.mark.parametrize(
    ("geometry", "says"),
    [
        (32, "is launched as scale[grid, block](...)"),
        ((1, 2, 3, 4, 5), "is launched as scale[grid, block](...)"),
        (((1, 2, 3, 4), 32), "grid (1, 2, 3, 4) needs one to three integers"),
        (((), 32), "grid () needs one to three integers"),
        ((0, 32), "grid 0 has x = 0; it must be 1 to 2147483647"),
        (((1, 65536), 32), "y = 65536; it must be 1 to 65535"),
        ((1, (1, 1, 65)), "block (1, 1, 65) has z = 65; it must be 1 to 64"),
        ((1, (32, 64)), "has 2048 threads; CUDA allows 1024"),
        ((1, 1.5), "block needs integers; 1.5 was given"),
        ((1, 1, -4), "shared memory is given in bytes, 0 or more; -4 was given"),
        ((1, 1, "4"), "shared memory needs integers; '4' was given"),
    ],
)
def test_a_geometry_that_cuda_would_refuse(kernels, geometry, says):
    with pytest.raises(KernelError) as caught:
        kernels["scale.cu"].scale[geometry]
    assert says in str(caught.value)


def test_a_kernel_without_geometry_says_how_to_launch_it(kernels):
    with pytest.raises(KernelError, match=r"write scale\[grid, block\]"):
        kernels["scale.cu"].scale(Array(), 4)
    assert not hasattr(kernels["scale.cu"], "__wrapped__")
