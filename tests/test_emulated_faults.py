"""What a kernel may not do is stopped with its line, block and thread, and the next launch works."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.emulated import program as emulated_program
from pytest_gpuperf.backends.emulated.runtime import FaultKind
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import KernelError

SOURCE = Path(__file__).with_suffix(".cu").read_text()
SECONDS = 0.4


@pytest.fixture(scope="module")
def program(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "mutants.cu"
    path.write_text(SOURCE)
    return backend.load(read(path))


def line_of(name):
    return next(n for n, line in enumerate(SOURCE.splitlines(), 1) if line.endswith(f"// {name}"))


@pytest.fixture
def fails(backend, program):
    """Launches a kernel that must fail, compares where, and sees that the next launch works."""

    def check(name, grid, block, *arguments, at, says, shared=0, line=True):
        with pytest.raises(KernelError) as caught:
            program.launch(name, Geometry.of(grid, block, shared), arguments)
        place = f"mutants.cu:{line_of(name)}: " if line else "mutants.cu: "
        assert f"{place}kernel {name}, block {at[0]}, thread {at[1]}: " in str(caught.value)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        dst = backend.empty((4,), np.float32)
        program.launch("good", Geometry.of((1, 1, 1), (4, 1, 1)), [dst])
        assert dst.get().tolist() == [0, 1, 2, 3]

    return check


ONE, FIRST = (1, 1, 1), (0, 0, 0)


def floats(*shape):
    return np.zeros(shape, np.float32)


def ints(n):
    return np.arange(n, dtype=np.int32)


SRC, ROW = "argument 1 'src'", "shared array 'lost_second_barrier::row'"
SHIFT = "shifts a number of 32 bits by"
FIRST_ROW = "shared array 'shared_overrun::"
FAULTS = [
    ("before_the_start", 32, (floats(32), floats(32)), 0,
     f"reads 4 bytes before the start of {SRC} (float32[32]): at byte -4 of 128"),
    ("across_the_end", 2, (floats(6), floats(2)), 1,
     f"reads 16 bytes across the end of {SRC} (float32[6]): at byte 16 of 24"),
    ("block_copy", 1, (floats(10), 11), 0,
     "writes 44 bytes across the end of argument 1 'dst' (float32[10])"),
    ("atomic", 1, (ints(4), 4), 0,
     "updates 4 bytes past the end of argument 1 'counts' (int32[4]): at byte 16 of 16"),
    ("misaligned", 1, (floats(8), floats(8)), 0, "reads 16 bytes at address"),
    ("through_ldg", 32, (floats(32), floats(32)), 30, "past the end"),  # an intrinsic's line is the kernel's
    ("shared_overrun", 32, (floats(32), 4), 28,
     f"reads 4 bytes past the end of {FIRST_ROW}first': at byte 128 of 128"),
    ("shared_overrun", 32, (floats(32), -4), 0, f"reads 4 bytes before the start of {FIRST_ROW}"),
    ("lost_second_barrier", 64, (floats(3, 64), floats(64), 3), 32,
     f"reads 4 bytes of {ROW} that thread (31, 0, 0) writes in line "
     f"{line_of('lost_second_barrier') - 2}: no barrier between (race)"),
    ("lost_warp_barrier", 32, (floats(32),), 16, "(race)"),
    ("unequal_stores", 4, (ints(4),), 2, "thread (1, 0, 0) writes in line"),
    ("atomic_and_plain", 4, (ints(4),), 1, "(race)"),
    ("lane_elsewhere", 32, (floats(32),), 0,
     "__shfl_down_sync waits for lane 16, which waits at __syncthreads"),
    ("lane_returned", 32, (floats(32),), 6, "__shfl_down_sync reads lane 7, which has returned already"),
    ("lane_missing", 16, (floats(32),), 0,
     "__shfl_down_sync reads lane 16, which does not exist in this block"),
    ("width_no_power", 32, (floats(32),), 0,
     "__shfl_xor_sync is called with the width 12, which is none of 1, 2, 4"),
    ("lane_not_in_mask", 32, (floats(32),), 4,
     "__syncwarp is called by lane 4, which is not in its mask 0x0000000f"),
    ("division", 8, (ints(8), 3), 3, "divides an integer by zero"),
    ("shifted", 8, (ints(8), 32), 0, f"{SHIFT} 32, which C++ leaves undefined"),
    ("shifted", 8, (ints(8), 3), 4, f"{SHIFT} -1, which C++ leaves undefined"),
    ("asserted", 8, (ints(8),), 5, "assert(src[threadIdx.x] < 5) failed"),
    ("trapped", 8, (2,), 2, "__trap()"),
    ("local_of_another", 8, (ints(8),), 1, "reads 4 bytes of another thread's local memory"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "threads", "arguments", "thread", "says"), FAULTS, ids=[fault[0] for fault in FAULTS]
)
def test_a_fault_names_its_line_thread_and_array(backend, fails, name, threads, arguments, thread, says):
    given = [backend.to_device(a) if isinstance(a, np.ndarray) else np.int32(a) for a in arguments]
    fails(name, ONE, (threads, 1, 1), *given, at=(FIRST, (thread, 0, 0)), says=says)


def test_past_the_end_of_an_array(backend, fails):
    src, dst = backend.to_device(np.ones((97, 101), np.float32)), backend.empty((101, 97), np.float32)
    fails(
        "past_the_end", (4, 13, 1), (32, 8, 1), src, dst, np.int32(97), np.int32(101),
        at=((0, 12, 0), (0, 1, 0)),
        says="reads 4 bytes past the end of argument 1 'src' (float32[97, 101]): at byte 39188 of 39188",
    )  # fmt: skip


def test_the_line_whatever_the_file_is_called(backend, tmp_path):
    """The emulator's own headers, whose lines help nobody, lie in a folder of that name."""
    path = tmp_path / "simt" / "copy (2).cu"
    path.parent.mkdir()
    path.write_text("__global__ void k(int *a) {\n  a[1] = 0;\n}\n")
    program = backend.load(read(path))
    with pytest.raises(KernelError, match=r"copy \(2\)\.cu:2: kernel k, "):
        program.launch("k", Geometry.of(ONE, ONE), [backend.empty((1,), np.int32)])


def test_the_access_is_stopped_before_it_happens(backend, program):
    """A store out of bounds changes nothing, however close the next array lies."""
    src, dst = backend.to_device(np.ones((2, 3), np.float32)), backend.empty((3, 2), np.float32)
    others = [backend.to_device(np.zeros(16, np.float32)) for _ in range(4)]
    with pytest.raises(KernelError, match="past the end"):
        program.launch("past_the_end", Geometry.of(ONE, (4, 4, 1)), [src, dst, np.int32(2), np.int32(3)])
    assert all(not other.get().any() for other in others)


@pytest.mark.parametrize(
    ("address", "says"), [(0, "(a null pointer)"), (1 << 46, "which is in no array of this device")]
)
def test_wild_pointers(backend, fails, address, says):
    dst = backend.empty((1,), np.float32)
    fails("null_pointer", ONE, ONE, dst, np.int64(address), at=(FIRST, FIRST), says=says)


@pytest.mark.parametrize(
    ("name", "last", "says"),
    [
        ("after_many", 64, "reads 4 bytes past the end of argument 1 'src' (int8[64]): at byte 64 of 64"),
        ("after_many", -4, "reads 4 bytes before the start of argument 1 'src' (int8[64]): at byte -4 of 64"),
        ("after_many", 62, "reads 4 bytes across the end of argument 1 'src' (int8[64]): at byte 62 of 64"),
        ("after_many", 2, "reads 4 bytes at address"),
        (
            "bytes_after_many",
            64,
            "reads 1 byte past the end of argument 1 'src' (int8[64]): at byte 64 of 64",
        ),
        ("bytes_after_many", -1, "reads 1 byte before the start of argument 1 'src' (int8[64])"),
    ],
)
def test_the_last_of_many_loads_at_one_place(backend, fails, name, last, says):
    """The kernel's own code lets through what is like the load before."""
    src, dst = backend.to_device(np.zeros(64, np.int8)), backend.empty((1,), np.float32)
    at = backend.to_device(np.array([*range(0, 64, 4), 0, 60, last], np.int32))
    fails(name, ONE, ONE, src, dst, at, np.int32(19), at=(FIRST, FIRST), says=says)


def test_freed_memory_behind_a_stale_pointer(backend, fails):
    gone, dst = backend.empty((97,), np.float32), backend.empty((32,), np.float32)
    table = backend.to_device(np.array([backend.address(gone)], np.uint64))
    backend.free(gone)
    says = "reads 4 bytes of memory that was freed: float32[97]"
    fails("through_table", ONE, (32, 1, 1), table, dst, at=(FIRST, FIRST), says=says)


def test_a_live_array_is_named_before_a_freed_one_in_its_place(backend, fails):
    """The gap behind an array may lie where freed arrays were."""
    for array in [backend.empty((n,), np.float32) for n in (30_000, 5000, 60_000, 32)]:
        backend.free(array)
    src, dst = backend.empty((32,), np.float32), backend.empty((32,), np.float32)
    says = "reads 4 bytes before the start of argument 1 'src' (float32[32]): at byte -4 of 128"
    fails("before_the_start", ONE, (32, 1, 1), src, dst, at=(FIRST, FIRST), says=says)


def test_a_pointer_in_memory_may_be_followed(backend, program):
    other, dst = backend.to_device(np.arange(32, dtype=np.float32)), backend.empty((32,), np.float32)
    table = backend.to_device(np.array([backend.address(other)], np.uint64))
    program.launch("through_table", Geometry.of(ONE, (32, 1, 1)), [table, dst])
    assert np.array_equal(dst.get(), other.get())


def test_dynamic_shared_memory_overrun(backend, fails):
    dst = backend.empty((32,), np.float32)
    says = "writes 4 bytes past the end of the dynamic shared memory: at byte 128 of 128"
    fails("dynamic_overrun", ONE, (32, 1, 1), dst, at=(FIRST, (31, 0, 0)), says=says, shared=128)


def test_dynamic_shared_memory_that_the_launch_does_not_give(backend, fails):
    """It was said to be past the end of another kernel's array."""
    dst = backend.empty((32,), np.float32)
    says = (
        "writes 4 bytes past the end of the dynamic shared memory "
        "(dynamic_overrun[grid, block, bytes] gives it): at byte 4 of 0"
    )
    fails("dynamic_overrun", ONE, (32, 1, 1), dst, at=(FIRST, FIRST), says=says)


def test_lost_barrier(backend, fails):
    src, dst = backend.empty((64,), np.float32), backend.empty((64,), np.float32)
    says = (
        "writes 4 bytes of shared array 'lost_barrier::tile' that thread (1, 0, 0) reads in line "
        f"{line_of('lost_barrier') + 1}: no barrier between (race)"
    )
    fails("lost_barrier", ONE, (8, 8, 1), src, dst, at=(FIRST, (0, 1, 0)), says=says)


def test_divergent_barrier(backend, fails):
    dst = backend.empty((64,), np.float32)
    says = f"while thread (40, 0, 0) waits at the one in line {line_of('two_barriers') + 2}"
    fails("two_barriers", (2, 1, 1), (64, 1, 1), dst, np.int32(40), at=(FIRST, FIRST), says=says)


@pytest.mark.parametrize("name", ["endless_quiet", "endless_busy", "endless_barrier", "endless_lock"])
def test_endless_loops_are_stopped(backend, program, name):
    """Also one that touches no memory, where no hook is called."""
    dst = backend.to_device(np.ones(8, np.int32))
    arguments = [dst, np.uint32(1)] if name == "endless_quiet" else [dst]
    begin = time.monotonic()
    with pytest.raises(KernelError, match=f"kernel {name}, .* still running after 0.4 s") as caught:
        program.launch(name, Geometry.of(ONE, (2, 1, 1)), arguments)
    assert time.monotonic() - begin < 5
    line = int(str(caught.value).partition("mutants.cu:")[2].partition(":")[0])
    assert abs(line - line_of(name)) <= 1  # the loop's head or its body
    program.launch("good", Geometry.of(ONE, (8, 1, 1)), [backend.empty((8,), np.float32)])


def test_a_thread_stopped_in_a_stub_is_where_it_returns_to(backend, program, monkeypatch):
    """A stub that calls a hook belongs to no line, and a loop can be interrupted there."""
    seen = []
    describe = emulated_program.describe
    monkeypatch.setattr(emulated_program, "describe", lambda *given: seen.append(given) or describe(*given))
    with pytest.raises(KernelError):  # whose place is a hook's call, and never a stub
        program.launch(
            "atomic", Geometry.of(ONE, ONE), [backend.to_device(np.ones(1, np.int32)), np.int32(4)]
        )
    fault, launched = seen[0]
    fault.kind, fault.address, fault.pc = FaultKind.STOPPED, fault.pc, launched.base + 1  # no code at all
    assert f"mutants.cu:{line_of('atomic')}: kernel atomic" in describe(fault, launched)
    fault.address = launched.base + 1
    assert "mutants.cu: kernel atomic" in describe(fault, launched)


def test_ctrl_c_ends_a_launch(backend, program, monkeypatch):
    """Whatever is raised while a launch runs stops its threads before the arrays can go away."""
    dst = backend.empty((8,), np.int32)
    waits = []
    wait = backend.runtime._library.gpuperf_wait

    def interrupted(milliseconds):
        waits.append(milliseconds)
        if len(waits) == 1:
            raise KeyboardInterrupt
        return wait(milliseconds)

    class Library:
        gpuperf_wait = staticmethod(interrupted)

        def __getattr__(self, name):
            return getattr(library, name)

    library = backend.runtime._library
    monkeypatch.setattr(backend.runtime, "_library", Library())
    with pytest.raises(KeyboardInterrupt):
        program.launch("endless_quiet", Geometry.of(ONE, ONE), [dst, np.uint32(1)])
    monkeypatch.undo()
    assert len(waits) >= 2
    program.launch("good", Geometry.of(ONE, (8, 1, 1)), [dst])
    assert backend.runtime._turn.acquire(timeout=1)
    backend.runtime._turn.release()


def test_a_full_stack(backend, fails):
    dst = backend.empty((8,), np.int32)
    says = "uses more local memory than the 512 KiB that CUDA allows a thread"
    for first in range(64, 1152, 64):  # full in a hook or in the kernel, wherever the last frame comes to lie
        arguments = dst, np.int32(1000), np.int32(first)
        fails("deep_recursion", ONE, ONE, *arguments, at=(FIRST, FIRST), says=says)


def test_a_crash(backend, fails):
    fails(
        "wild_jump", ONE, ONE, np.int64(1 << 46), at=(FIRST, FIRST), says="crashes with SIGSEGV", line=False
    )


def test_the_fault_of_the_lowest_block_is_reported(backend, program):
    """However many OS threads run the blocks, and however often."""
    src, dst = backend.empty((256, 64), np.float32), backend.empty((64, 256), np.float32)
    said = set()
    for _ in range(10):
        with pytest.raises(KernelError) as caught:
            program.launch(
                "past_the_end", Geometry.of((2, 64, 1), (32, 8, 1)), [src, dst, np.int32(256), np.int32(64)]
            )
        said.add(str(caught.value))
    assert len(said) == 1
    assert "block (0, 32, 0), thread (0, 0, 0)" in said.pop()


def test_python_threads_take_turns(backend, program):
    """Launches from several Python threads at once are each right."""
    right = []

    def launch(n):
        for _ in range(20):
            dst = backend.empty((n,), np.float32)
            program.launch("good", Geometry.of(ONE, (n, 1, 1)), [dst])
            right.append(np.array_equal(dst.get(), np.arange(n)))

    threads = [threading.Thread(target=launch, args=(n,)) for n in (3, 64, 257)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 60
