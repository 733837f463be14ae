"""A thread that reads a variable of its own before it has written it is stopped; what is right runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.geometry import Geometry
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
        ("summed_by_shuffles", 0, 1, 0, "4 bytes of its own 'sum' (byte 0 of 4)"),
        ("at_once_in_a_loop", 0, 1, 0, "4 bytes of its own 'difference' (byte 0 of 4)"),
        ("one_thread_of_a_template", 6, 1, 0, "4 bytes of its own 'table' (byte 12 of 48)"),
        ("one_thread_of_a_template", 6, -1, 1, "4 bytes of its own 'table' (byte 4 of 48)"),
        ("anew_in_each_turn", 1, 2, 0, "2 bytes of its own 'digits' (byte 2 of 4)"),
        ("in_a_function", 2, 1, 0, "4 bytes of its own 'pair' (byte 4 of 8)"),
        ("where_an_array_was_read", 2, 1, 0, "4 bytes of its own 'pair' (byte 4 of 8)"),
        ("behind_a_barrier", -1, 33, 33, "4 bytes of its own 'mine' (byte 4 of 8)"),
        ("copied", 2, 1, 0, "4 bytes of its own 'from' (byte 4 of 8)"),
        ("part_of_a_vector", 2, 1, 0, "4 bytes of its own 'part' (byte 4 of 16)"),
        ("part_of_a_structure", 2, 1, 0, "4 bytes of its own 'sums' (byte 12 of 16)"),
        ("view_of_a_union", 2, 1, 0, "1 byte of its own 'view' (byte 7 of 8)"),
        ("by_pointer", 2, 1, 0, "4 bytes of its own 'x' (byte 0 of 4)"),
        ("by_reference", 2, 1, 0, "4 bytes of its own 'x' (byte 0 of 4)"),
        ("loop_of_no_turns", 2, 1, 0, "1 byte of its own 'found' (byte 0 of 1)"),
        ("in_a_member", 3, 2, 0, "4 bytes of its own 'weights' (byte 8 of 12)"),
        ("passed_by_value", 2, 1, 0, "16 bytes of its own 'colour' (byte 0 of 16)"),
        ("returned_elsewhere", 1, 2, 0, "4 bytes of its own 'colours' (byte 16 of 32)"),
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


@pytest.mark.parametrize(
    ("name", "works", "fails", "what"),
    [
        ("behind_its_array", 3, 4, "element 4 of its own 'a', which has 4"),
        ("before_its_array", 2, 1, "element -1 of its own 'weights', which has 3"),
        ("inner_index", 2, 3, "element 3 of its own 'table[1]', which has 3"),
        ("in_a_structure", 2, 3, "element 3 of its own 'rows[i].of', which has 3"),
        ("a_full_stack", 4, 5, "element 4 of its own 'stack', which has 4"),
        ("always", 1, 0, "element 4 of its own 'a', which has 4"),
    ],
)
def test_an_index_outside_an_array_of_its_own(launch, name, works, fails, what):
    launch(name, works)
    line = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if text.endswith(f"// {name}"))
    says = f"locals.cu:{line}: kernel {name}, block (0, 0, 0), thread (0, 0, 0): uses {what} (out of bounds)"
    with pytest.raises(KernelError, match=re.escape(says)):
        launch(name, fails)


def test_what_is_written_in_other_ways_is_no_finding(launch):
    assert launch("guarded", 1)[:4] == [1, 1, 1, 1]
    assert launch("guarded", 3)[:4] == [3, 6, 9, 12]
    assert launch("by_other_ways", 0)[:4] == [0, 1, 1, 20]
    assert launch("by_other_ways", 1)[:4] == [0, 1, 5, 20]
    assert launch("copied_whole", 1)[0] == 9
    assert launch("copied_whole", 0)[0] == 0
    assert launch("filled_elsewhere", 1)[0] == 7
    assert launch("indices_inside", 1)[:2] == [18, 4]
    assert launch("given_values", 1)[:2] == [0, 0]
    assert launch("written_on_every_path", 1)[:2] == [5, 4]
    assert launch("handed_to_the_others", 1, 16) == [1, 3, 5, 7, 9, 11, 13, 15]  # one lane's, by a shuffle


def test_what_docs_say_is_not_seen_is_let_through(launch):
    assert launch("not_seen", 1)[3:] == [1] * 5


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


CALLS = """
struct Four { float x, y, z, w; };
template <class T> __device__ __noinline__ T made(float x) { return {x, x, x, x}; }
__device__ __noinline__ float sum(Four of, int) { return of.x + of.w; }
__device__ Four deep(float x, int n) { Four f = {x, x, x, x}; return n > 0 ? deep(x + 1, n - 1) : f; }
extern "C" __global__ void store(Four *out, int n) { out[n] = made<Four>(1); }
extern "C" __global__ void load(Four *out, int n) { out[0].x = sum(out[n], n); }
extern "C" __global__ void shared(Four *out, int n) {
  __shared__ Four tile[2];
  tile[0] = made<Four>(n);
  out[0].x = sum(tile[n], 0);
}
extern "C" __global__ void recursive(Four *out, int n) {
  Four kept, other;
  kept = deep(n, n);
  if (n > 5) other.x = 1;
  out[0].x = kept.x;
  if (n > 1) out[0].y = other.x;
}
"""

VIRTUAL = """
struct Four { float x, y, z, w; };
struct Shape { __device__ virtual Four at(int i) const { Four f; f.x = i; return f; } };
extern "C" __global__ void kept(Four *out, int n) {
  Shape shape;
  const Shape *shapes[2] = {&shape, &shape};
  Four all[2];
  float number[2];
  (n > 5 ? out : all)[n & 1] = shapes[n & 1]->at(n);
  if (n > 0) out[0].y = number[n];
  out[0].x = all[n & 1].x;
}
"""


def test_what_a_call_reads_and_writes_is_checked(backend, tmp_path):
    """A structure that a function takes or returns by value; one that calls itself is left alone."""
    (tmp_path / "calls.cu").write_text(CALLS)
    file, out = Kernels(tmp_path, backend)["calls.cu"], backend.to_device(np.zeros(8, np.float32))
    for name in ("store", "load", "shared", "recursive"):
        file[name][1, 1](out, 0)
    for name, says in [
        ("store", "6: kernel store, block (0, 0, 0), thread (0, 0, 0): writes 16 bytes past the end"),
        ("load", "7: kernel load, block (0, 0, 0), thread (0, 0, 0): reads 16 bytes past the end"),
        ("shared", "11: kernel shared, block (0, 0, 0), thread (0, 0, 0): reads 16 bytes of shared array"),
        ("recursive", "18: kernel recursive, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes of its own"),
    ]:
        with pytest.raises(KernelError, match=re.escape(f"calls.cu:{says}")):
            file[name][1, 1](out, 1 if name == "shared" else 2)
    # A store that nothing sees may go to any structure, which then are not watched; arrays of numbers are.
    (tmp_path / "virtual.cu").write_text(VIRTUAL)
    file = Kernels(tmp_path, backend)["virtual.cu"]
    file["kept"][1, 1](out, 0)
    with pytest.raises(KernelError, match=re.escape("virtual.cu:10: kernel kept, block (0, 0, 0)")):
        file["kept"][1, 1](out, 1)


def test_counters_see_what_a_call_stores(backend, tmp_path):
    (tmp_path / "calls.cu").write_text(CALLS)
    file, out = Kernels(tmp_path, backend)["calls.cu"], backend.to_device(np.zeros(8, np.float32))
    traffic = count(file.program, "store", Geometry.of((1, 1, 1), (32, 1, 1)), [out, np.int32(1)])
    assert (traffic.global_store.requests, traffic.global_load.requests) == (1, 0)
