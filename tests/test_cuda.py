"""The CUDA backend: parameters, arrays and launches, on a device where there is one."""

import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from gpuproject import BINDINGS
from samplekernels import KERNELS, sample_kernels  # noqa: F401  (a fixture)

from pytest_gpuperf.backends.cuda.program import pack
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import GpuperfError, KernelError, NotFit


def test_parameters_are_laid_out_as_the_cuda_abi_does():
    struct = np.dtype([("a", np.int8), ("b", np.float64)], align=True)
    values = [
        np.uint64(0x1122334455667788),
        np.int8(1),
        np.int32(2),
        np.bool_(True),
        np.float64(0.5),
        np.float16(1),
    ]
    buffer = pack([*values, np.zeros((), struct)[()]])
    assert buffer[:8] == np.uint64(0x1122334455667788).tobytes()
    assert buffer[8:12] == b"\1\0\0\0"
    assert buffer[12:16] == np.int32(2).tobytes()
    assert buffer[16:24] == b"\1" + bytes(7)
    assert buffer[24:32] == np.float64(0.5).tobytes()
    assert buffer[32:34] == np.float16(1).tobytes()
    assert len(buffer) == 40 + 16
    assert pack([]) == b""


@pytest.mark.gpu
def test_the_device_says_what_it_is(gpu):
    place = gpu.device.place()
    assert place["backend"] == gpu.backend == "cuda"
    assert place["gpu"] == gpu.name
    assert place["memory_gib"] > 1
    assert gpu.compute_capability >= (5, 0)
    assert gpu.uuid.startswith(("GPU-", "MIG-"))
    assert len(gpu.uuid) == 40
    if shutil.which("nvidia-smi"):
        assert gpu.uuid in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout


@pytest.mark.gpu
def test_arrays_go_there_and_come_back(gpu):
    host = np.arange(12, dtype=np.int16).reshape(3, 4)
    array = gpu.to_device(host.T)
    assert np.array_equal(array.get(), host.T)
    assert np.array_equal(array[1:3].get(), host.T[1:3])
    assert np.array_equal(gpu.random((5, 7), seed=3).get(), gpu.random((5, 7), seed=3).get())


@pytest.mark.gpu
def test_a_kernel_computes(gpu, kernels):
    n = 1000
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    kernels.scale[4, 256](src, dst, n, 3)
    assert np.array_equal(dst.get(), src.get() * np.float32(3))
    kernels.nothing[1, 1]()
    gpu.synchronize()


@pytest.mark.gpu
def test_every_kind_of_parameter_arrives(gpu, kernels):
    out = gpu.empty(5)
    kernels.mixed[1, 1](-3, 0.25, 300, out, True, 2**20)
    assert out.get().tolist() == [-3, 0.25, 300, 1, 2**20]


@pytest.mark.gpu
def test_wrong_arguments_never_reach_the_device(gpu, kernels):
    src, dst = gpu.random(4), gpu.empty(4)
    for arguments, says in [
        ((src.get(), dst, 4, 1.0), "NumPy array on the host"),
        ((gpu.random(4, np.float64), dst, 4, 1.0), "it needs float32"),
        ((gpu.random((4, 4)).T, dst, 4, 1.0), "not C-contiguous"),
        ((src, dst, 4.5, 1.0), "integer is needed"),
        ((src, dst, 4), "takes 4 arguments, 3 given"),
    ]:
        with pytest.raises(KernelError, match=says):
            kernels.scale[1, 4](*arguments)
    gpu.synchronize()


@pytest.mark.gpu
def test_dynamic_shared_memory_beyond_48_kib(gpu, kernels):
    src, dst = gpu.random(16384, seed=2), gpu.empty(16384)
    kernels.reversed[1, 256, 4 * 16384](src, dst)
    assert np.array_equal(dst.get(), src.get()[::-1])


@pytest.mark.gpu
def test_a_launch_cuda_refuses_is_one_harmless_sentence(gpu, kernels):
    x = gpu.empty(1024)
    with pytest.raises(
        KernelError, match=r"CUDA refused while launching narrow \(sample.cu\).*block \(512, 1, 1\)"
    ):
        kernels.narrow[1, 512](x)
    with pytest.raises(KernelError, match="CUDA refused while launching nothing"):
        kernels.nothing[1, 1, 2**30]()
    kernels.narrow[1, 64](x)
    assert x.get()[63] == 63


@pytest.mark.gpu
def test_freed_memory_is_given_back_and_using_it_is_an_error(gpu, kernels):
    mark, before = gpu.mark(), gpu.device.free_memory()
    array = gpu.empty(2**28, np.uint8)
    view = array[16:32]
    floats = gpu.empty(16)
    assert gpu.device.free_memory() < before - 2**27
    gpu.free_since(mark)
    assert gpu.device.free_memory() > before - 2**26
    with pytest.raises(KernelError, match="memory was given back"):
        array.get()
    with pytest.raises(KernelError, match=r"argument 1.*memory was given back"):
        kernels.narrow[1, 1](floats)
    with pytest.raises(KernelError, match="memory was given back"):
        gpu.device.address(view)


@pytest.mark.gpu
def test_an_array_too_large_for_the_device(gpu):
    with pytest.raises(GpuperfError, match=r"no room for an array .*: 16,384\.00 GiB asked, .* GiB free of "):
        gpu.empty((2**14, 2**30), np.uint8)


@pytest.mark.gpu
def test_torch_tensors_are_arguments(gpu, kernels):
    torch = pytest.importorskip("torch")
    src = torch.arange(256, dtype=torch.float32, device="cuda")
    dst = torch.empty_like(src)
    kernels.scale[1, 256](src, dst, 256, 2.0)
    gpu.synchronize()
    assert torch.equal(dst, src * 2)
    with pytest.raises(KernelError, match="not C-contiguous"):
        kernels.scale[1, 256](src.reshape(16, 16).T, dst, 256, 2.0)
    with pytest.raises(KernelError, match="it needs float32"):
        kernels.scale[1, 256](src.double(), dst, 256, 2.0)


@pytest.mark.gpu
def test_other_libraries_share_arrays_and_the_stream(gpu, kernels):
    torch = pytest.importorskip("torch")
    pytest.importorskip("cuda.core")
    x = gpu.to_device(np.arange(12, dtype=np.float32).reshape(3, 4))
    taken = torch.from_dlpack(x)
    assert taken.data_ptr() == x.ptr == torch.as_tensor(x, device="cuda").data_ptr()
    assert x.contents is None, "they may write to it"
    taken += 1
    gpu.synchronize()
    assert x.get().tolist() == taken.tolist() == (np.arange(12).reshape(3, 4) + 1).tolist()
    assert gpu.stream.__cuda_stream__() == (0, int(gpu.stream.handle))
    with torch.cuda.stream(torch.cuda.ExternalStream(int(gpu.stream.handle))):
        doubled = taken * 2
    gpu.synchronize()
    assert doubled.tolist() == (2 * x.get()).tolist()


@pytest.mark.gpu
def test_templates_and_variables_are_found(gpu, tmp_path):
    from test_names import SOURCE

    (tmp_path / "names.cu").write_text(SOURCE, encoding="latin-1")
    file = Kernels(tmp_path, gpu)["names.cu"]
    out = gpu.to_device(np.zeros(1, np.int32))
    file.constants["hidden"] = np.array([5, 6, 7], np.int32)
    file["secret"][1, 1](out)
    assert (out.get()[0], file.constants["counter"]) == (5, 1)
    file["fill<int>"][1, 1](out)
    assert out.get()[0] == 5, "an instantiation has the file's constants"
    file["ns::k(int*)"][1, 1](out)
    assert out.get()[0] == 1
    x, sums = gpu.random(256, seed=1), gpu.empty(1)
    file["reduce<float, 256>"][1, 256](x, sums, 3)
    assert sums.get()[0] == x.get()[3]


@pytest.mark.gpu
def test_cupy_arrays_are_arguments(gpu, kernels):
    cupy = pytest.importorskip("cupy")
    src = cupy.arange(256, dtype=cupy.float32)
    dst = cupy.empty_like(src)
    kernels.scale[1, 256](src, dst, 256, 2.0)
    gpu.synchronize()
    assert bool((dst == src * 2).all())


@pytest.mark.gpu
def test_code_hash_belongs_to_the_machine_code(gpu, kernels, tmp_path):
    (tmp_path / "same.cu").write_text("// moved\n" + KERNELS)
    (tmp_path / "other.cu").write_text(KERNELS.replace("* factor", "+ factor"))
    here = Kernels(tmp_path, gpu)
    assert here["same.cu"].scale[1, 1].code_hash == kernels.scale[1, 1].code_hash
    assert here["other.cu"].scale[1, 1].code_hash != kernels.scale[1, 1].code_hash


@pytest.mark.gpu
@pytest.mark.parametrize("choice", BINDINGS)
def test_an_illegal_access_is_named_and_the_process_is_unfit(choice, tmp_path):
    """In a process of its own, whose context it destroys."""
    (tmp_path / "sample.cu").write_text(KERNELS)
    code = f"""
        from pathlib import Path
        from pytest_gpuperf.backends import select
        from pytest_gpuperf.backends.kernels import Kernels
        from pytest_gpuperf.backends.gpu import Gpu
        gpu = Gpu(select({choice!r}))
        x = gpu.empty(4)
        Kernels(Path({str(tmp_path)!r}), gpu)["sample.cu"].astray[1, 1](x)
        for use in (x.get, gpu.synchronize, lambda: gpu.empty(4)):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
        gpu.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith(f"{KernelError.__name__} A kernel broke the CUDA context")
    assert "illegal memory access" in lines[0]
    assert "The last launch was astray (sample.cu)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [NotFit.__name__] * 2
