"""The work of kernels that other libraries compile and launch."""

import functools
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_machine_code import changed, sections

from pytest_gpuperf.backends.foreign import work_hash

CUBIN = (Path(__file__).parent / "kept/two_kernels.cubin").read_bytes()
OTHER = changed(CUBIN, sections(CUBIN)[".text.scale"][0])


class Tensor:
    """An array of another library, with values on the host."""

    def __init__(self, *values):
        self.host = np.array(values, np.float32)
        self.nbytes, self.shape, self.strides = self.host.nbytes, self.host.shape, self.host.strides

    def get(self):
        return self.host


def triton(cubin=CUBIN, grid=(4,), variants=1, warps=4):
    """What ``kernel[grid]`` is in Triton, whose kernel is compiled by the first launch."""
    caches = [{}, "key", {"other": 1}]
    kernel = SimpleNamespace(device_caches={0: caches}, launched=[])
    metadata = SimpleNamespace(num_warps=warps, shared=0)

    def run(*arguments, **named):
        for number in range(variants):
            code = cubin if number == 0 else OTHER
            caches[0][number] = SimpleNamespace(asm={"cubin": code}, metadata=metadata)
        kernel.launched.append((arguments, named))

    def subscript(self, grid):
        return lambda *args, **kwargs: (self, run(*args, grid=grid, **kwargs))

    launch = subscript(kernel, grid)
    launch.__module__ = "triton.runtime.jit"
    return launch


class Numba:
    """What ``kernel[grid, block]`` is in numba-cuda."""

    def __init__(self, cubin=CUBIN, grid=(4, 1, 1), wrapped=False):
        self.griddim, self.blockdim, self.sharedmem = grid, (64, 1, 1), 0
        self.dispatcher = SimpleNamespace(overloads={})
        self._cubin = SimpleNamespace(code=cubin) if wrapped else cubin

    def __call__(self, *arguments):
        library = SimpleNamespace(get_cubin=lambda: self._cubin)
        self.dispatcher.overloads["sig"] = SimpleNamespace(_codelibrary=library)


class RawKernel:
    """CuPy's, called as ``kernel(grid, block, arguments)``."""

    def __init__(self, code="void f() {}", options=()):
        self.code, self.options, self.name, self.backend = code, options, "f", "nvrtc"

    def __call__(self, grid, block, arguments, shared_mem=0):
        pass


RawKernel.__module__ = "cupy._core.raw"


def cuda_core(cubin=CUBIN, grid=4):
    """The arguments of cuda.core's ``launch``."""

    def launch(stream, config, kernel, *arguments):
        pass

    launch.__module__ = "cuda.core._launcher"
    config = SimpleNamespace(grid=(grid,), cluster=None, block=(64,), shmem_size=0)
    kernel = SimpleNamespace(_module=SimpleNamespace(code=cubin))
    return functools.partial(launch, object(), config, kernel)


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(nvrtc=nvrtc)))
    return nvrtc


def of_cupy(grid=(4,), **kernel):
    return functools.partial(RawKernel(**kernel), grid, (64,))


@pytest.mark.parametrize("make", [triton, Numba, cuda_core], ids=["triton", "numba", "cuda.core"])
def test_work_is_the_same_while_what_decides_it_is(make):
    x = Tensor(1, 2)
    same = work_hash(make(), (x, 3))
    assert same == work_hash(make(), (Tensor(1, 2), 3))
    assert same.startswith("f-")
    assert not same.endswith("?")
    others = [
        work_hash(make(cubin=OTHER), (x, 3)),
        work_hash(make(grid=8 if make is cuda_core else (8, 1, 1)), (x, 3)),
        work_hash(make(), (x, 4)),
        work_hash(make(), (Tensor(1, 3), 3)),
        work_hash(make(), (x, 3, x)),
        work_hash(make(), (x, 3, Tensor(1, 2))),
    ]
    assert len({same, *others}) == 7


def test_cupys_source_and_compiler_stand_for_its_code(cupy):
    arguments = ((Tensor(1, 2), 3),)
    same = work_hash(of_cupy(), arguments)
    others = [
        work_hash(of_cupy(code="void f() { }"), arguments),
        work_hash(of_cupy(options=("-G",)), arguments),
        work_hash(of_cupy(grid=(5,)), arguments),
        work_hash(of_cupy(), ((Tensor(1, 2), 4),)),
        work_hash(of_cupy(), (*arguments, 1024)),
    ]
    assert same == work_hash(of_cupy(), arguments)
    cupy.getVersion = lambda: (13, 1)
    assert len({same, work_hash(of_cupy(), arguments), *others}) == 7
    assert work_hash(of_cupy(code='#include "x.h"\nvoid f() {}'), arguments) is None


def test_argument_names_count_and_partials_are_unpacked():
    x = Tensor(1)
    named = work_hash(functools.partial(functools.partial(triton(), BLOCK=64), x), (1,))
    assert named == work_hash(functools.partial(triton(), x, BLOCK=64), (1,))
    assert named != work_hash(functools.partial(triton(), x, BLOCK=32), (1,))
    assert named != work_hash(functools.partial(triton(), x, SIZE=64), (1,))
    assert work_hash(Numba(wrapped=True), (x,)) == work_hash(Numba(), (x,))
    assert work_hash(triton(warps=8), (x,)) != work_hash(triton(), (x,))


def test_contents_that_cannot_be_had_are_unknown():
    large = Tensor(1)
    large.nbytes = 1 << 40
    for unknown in (object(), large, np.zeros(3), SimpleNamespace(contents=None)):
        assert work_hash(triton(), (unknown,)).endswith("?")
    ours = SimpleNamespace(contents="random(seed=1)")
    assert not work_hash(triton(), (ours, np.float32(2))).endswith("?")


def test_whatever_else_is_launched_has_no_hash():
    launched = []
    assert work_hash(lambda x: launched.append(x), (1,)) is None
    assert launched == [], "nor is it launched for one"
    assert work_hash(triton(variants=2), (1,)) is None, "of two variants nobody knows which runs"
    assert work_hash(triton(grid=lambda meta: (1,)), (1,)) is None
    assert work_hash(print, ()) is None


# ------------------------------------------------------------- the libraries themselves, on a GPU


@pytest.fixture
def device():
    from pytest_gpuperf.backends.cuda.device import CudaBackend

    made = CudaBackend()
    yield made
    made.close()


TRITON = """
import triton
import triton.language as tl


@triton.jit
def scale(x, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < n) * FACTOR, mask=at < n)
"""


@pytest.mark.gpu
def test_tritons_kernels_have_a_hash(device, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(tmp_path)

    numbers = itertools.count()

    def work(factor, fill=1.0):
        module = f"kernels_{next(numbers)}"
        (tmp_path / f"{module}.py").write_text(TRITON.replace("FACTOR", factor))
        kernel = __import__(module).scale
        x = torch.full((256,), fill, device="cuda")
        return work_hash(functools.partial(kernel[(4,)], BLOCK=64), (x, 256))

    assert work("2.0") == work("2.0")
    assert len({work("2.0"), work("3.0"), work("2.0", fill=2.0)}) == 3


@pytest.mark.gpu
def test_cupys_raw_kernels_have_a_hash(device, monkeypatch):
    monkeypatch.undo()
    cupy = pytest.importorskip("cupy")

    def work(factor, block=64):
        code = 'extern "C" __global__ void f(float *x) { x[threadIdx.x] *= FACTOR; }'
        kernel = cupy.RawKernel(code.replace("FACTOR", factor), "f")
        return work_hash(functools.partial(kernel, (1,), (block,)), ((cupy.ones(64, "f4"),),))

    assert work("2.0f") == work("2.0f")
    assert len({work("2.0f"), work("3.0f"), work("2.0f", 32)}) == 3


@pytest.mark.gpu
def test_numbas_kernels_have_a_hash(device):
    cuda = pytest.importorskip("numba.cuda")
    pytest.importorskip("numba_cuda")
    try:
        import numba.cuda.np.arrayobj  # noqa: F401, numba-cuda loads it at the first launch
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this numba-cuda and this NumPy do not go together: {error}")

    def work(factor, grid=1):
        @cuda.jit
        def scale(x):
            x[cuda.grid(1)] *= factor

        return work_hash(scale[grid, 64], (cuda.to_device(np.ones(256, "f4")),))

    assert work(2.0) == work(2.0)
    assert len({work(2.0), work(3.0), work(2.0, 4)}) == 3


@pytest.mark.gpu
def test_cuda_cores_kernels_have_a_hash(device):
    core = pytest.importorskip("cuda.core")
    gpu = core.Device()
    gpu.set_current()
    arch = "sm_" + "".join(map(str, device.compute_capability))

    def work(factor, grid=1):
        code = 'extern "C" __global__ void f(int n) { if (n == FACTOR) __trap(); }'.replace("FACTOR", factor)
        made = core.Program(code, "c++", core.ProgramOptions(arch=arch)).compile("cubin")
        config = core.LaunchConfig(grid=grid, block=64)
        return work_hash(
            functools.partial(core.launch, gpu.create_stream(), config, made.get_kernel("f")), (1,)
        )

    found = work("2")
    if found is None:
        pytest.skip("this cuda.core does not tell what a kernel was compiled to")
    assert found == work("2")
    assert len({found, work("3"), work("2", 4)}) == 3
