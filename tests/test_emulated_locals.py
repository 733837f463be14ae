"""A thread that reads a variable of its own before it has written it is stopped; what is right runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.base import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments.counters import count

SOURCE = Path(__file__).with_suffix(".cu").read_text()


@pytest.fixture
def launch(backend):
    """Launches a kernel of the file, and returns what it left in its array."""
    kernels = Kernels(Path(__file__).parent, backend)["test_emulated_locals.cu"]

    def launch(name, n, threads=1):
        out = backend.to_device(np.ones(8, np.float32))
        kernels[name][1, threads](out, n)
        return out.get().tolist()

    return launch


@pytest.mark.parametrize(
    ("name", "works", "fails", "thread", "variable"),
    [
        ("last_of_an_array", 4, 3, 0, "4 bytes of its own 'partial' (byte 12 of 16)"),
        ("sum_without_zero", 0, 1, 0, "4 bytes of its own 'sum' (byte 0 of 4)"),
        ("at_once_in_a_loop", 0, 1, 0, "4 bytes of its own 'difference' (byte 0 of 4)"),
        ("one_thread_of_a_template", 6, 1, 0, "4 bytes of its own 'table' (byte 12 of 48)"),
        ("one_thread_of_a_template", 6, -1, 1, "4 bytes of its own 'table' (byte 4 of 48)"),
        ("anew_in_each_turn", 1, 2, 0, "2 bytes of its own 'digits' (byte 2 of 4)"),
        ("in_a_function", 2, 1, 0, "4 bytes of its own 'pair' (byte 4 of 8)"),
        ("where_an_array_was_read", 2, 1, 0, "4 bytes of its own 'pair' (byte 4 of 8)"),
        ("behind_a_barrier", -1, 33, 33, "4 bytes of its own 'mine' (byte 4 of 8)"),
        ("copied", 2, 1, 0, "4 bytes of its own 'from' (byte 4 of 8)"),
    ],
)
def test_a_variable_read_before_it_is_written(launch, name, works, fails, thread, variable):
    threads = 1 + thread
    launch(name, works, threads)
    line = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if text.endswith(f"// {name}"))
    says = f"locals.cu:{line}: kernel {name}, block (0, 0, 0), thread ({thread}, 0, 0): reads {variable}"
    with pytest.raises(KernelError, match=re.escape(f"{says}, which it has not written")):
        launch(name, fails, threads)
    launch(name, works, threads)  # nothing is left on the stacks


def test_what_is_written_in_other_ways_is_no_finding(launch):
    assert launch("guarded", 1)[:4] == [1, 1, 1, 1]
    assert launch("guarded", 3)[:4] == [3, 6, 9, 12]
    assert launch("by_other_ways", 0)[:4] == [0, 1, 1, 20]
    assert launch("by_other_ways", 1)[:4] == [0, 1, 5, 20]
    assert launch("handed_to_the_others", 1, 16) == [1, 3, 5, 7, 9, 11, 13, 15]  # one lane's, by a shuffle


def test_code_that_cannot_be_watched_runs_as_it_is(backend, tmp_path):
    """An array of variable length is g++'s own, and counters are taken of the code as it is."""
    source = 'extern "C" __global__ void k(int *o, int n) { int a[n]; a[n - 1] = 5; o[0] = a[n - 1]; }\n'
    (tmp_path / "own.cu").write_text(source)
    file, out = Kernels(tmp_path, backend)["own.cu"], backend.to_device(np.zeros(1, np.int32))
    file.k[1, 1](out, 3)
    assert out.get() == [5]
    plain = 'extern "C" __global__ void k(int *o) { int a[2]; a[0] = o[0]; o[1] = a[o[0]]; }\n'
    (tmp_path / "counted.cu").write_text(plain)
    file = Kernels(tmp_path, backend)["counted.cu"]
    out = backend.to_device(np.ones(2, np.int32))
    assert count(file.program, "k", Geometry.of((1, 1, 1), (1, 1, 1)), [out]).global_load.requests > 0
    with pytest.raises(KernelError, match="reads 4 bytes of its own 'a'"):
        file.k[1, 1](out)
