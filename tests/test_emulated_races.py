"""Races, unwritten memory, blocks that wait: a bug is named with both threads, and what is right runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import KernelError

SOURCE = Path(__file__).with_suffix(".cu").read_text()
SECONDS = 20


@pytest.fixture(scope="module")
def program(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("races") / "races.cu"
    path.write_text(SOURCE)
    return backend.load(read(path))


@pytest.fixture
def launch(backend, program):
    """Launches a kernel with copies of NumPy arrays, and returns what it left in them."""

    def launch(name, grid, block, *arguments):
        given = [backend.to_device(a) if isinstance(a, np.ndarray) else np.int32(a) for a in arguments]
        program.launch(name, Geometry.of(grid, block), given)
        return [a.get() for a in given if not isinstance(a, np.generic)]

    return launch


def line_of(name):
    return next(n for n, line in enumerate(SOURCE.splitlines(), 1) if line.endswith(f"// {name}"))


def ints(n, value=0):
    return np.full(n, value, np.int32)


def floats(n, value=1):
    return np.full(n, value, np.float32)


DID = "(reads|writes|updates)"
RACE = rf"thread (\(.*?\)): {DID} .* that (?:block (\(.*?\)), )?thread (\(.*?\)) {DID} in line \d+"
DIGITS = np.arange(1024, dtype=np.int32) % 8

BUGS = [
    ("histogram", 4, 256, (DIGITS, ints(8), 1024), "argument 2 'bins'"),
    ("merge", 4, 256, (DIGITS, ints(8), 1024), r"block \(0, 0, 0\), .*: nothing orders the two blocks"),
    ("block_sum", 4, 32, (floats(128), floats(1, 0)), r"that block \(0, 0, 0\), thread \(0, 0, 0\) writes"),
    ("tree_without_barrier", 1, 64, (floats(128),), "no barrier between"),
    ("stencil_in_place", 2, 32, (floats(64, 3) * np.arange(64, dtype=np.float32),  64), "argument 1 'x'"),
    ("swap_from_both_ends", 1, 64, (np.arange(64, dtype=np.float32), 64), r"\(race\)"),
    ("last_block_without_fence", 8, 32, (floats(8, 0), floats(1, 0)), "nothing orders the two blocks"),
    ("lock_missing_once", 4, 1, (ints(1), ints(1)), "nothing orders the two blocks"),
    ("cleared_by_the_first_block", 2, 32, (ints(1, 5),), "updates 4 bytes of argument 1 'sum'"),
    ("words_and_bytes", 1, 64, (ints(64),), "words_and_bytes::s"),
    ("shorts_and_words", 1, 64, (ints(64),), "shorts_and_words::s"),
    ("bytes_in_global", 1, 64, (np.zeros(65, np.uint8),), "argument 1 'x'"),
    ("half_a_syncwarp", 1, 32, (ints(16),), "half_a_syncwarp::s"),
    ("lockstep", 1, 32, (floats(1), floats(32)), "lockstep::s"),
    ("many_readers", 1, 64, (ints(64),), "reads in line"),
    ("device_variable", 1, 2, (ints(2),), "variable 'seen_by_all'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "grid", "block", "arguments", "says"), BUGS, ids=[bug[0] for bug in BUGS])
def test_a_race_names_the_line_the_array_and_two_threads(launch, name, grid, block, arguments, says):
    with pytest.raises(KernelError) as caught:
        launch(name, grid, block, *arguments)
    message = str(caught.value)
    lines = re.findall(r"races.cu:(\d+): kernel|in line (\d+)", message)
    assert str(line_of(name)) in {a or b for a, b in lines}, message
    assert f": kernel {name}, block " in message
    assert re.search(says, message), message
    mine, did, other_block, other, other_did = re.search(RACE, message).groups()
    assert other_block or mine != other  # never one thread twice
    assert {did, other_did} != {"reads"}


@pytest.mark.parametrize("name", ["never_filled", "counted_without_zero"])
def test_shared_memory_that_nobody_wrote(launch, name):
    arguments = (floats(32), floats(32)) if name == "never_filled" else (ints(32),)
    with pytest.raises(
        KernelError, match=rf"races.cu:{line_of(name)}: .* which no thread of the block has written"
    ):
        launch(name, 1, 32, *arguments)


@pytest.mark.parametrize(
    ("name", "variable"),
    [("past_a_device_array", "table"), ("past_a_constant_array", "fixed"), ("past_a_static_array", "filled")],
)
@pytest.mark.parametrize("index", [-200, -1, 4, 67, 200])
def test_beyond_the_librarys_own_arrays(launch, name, variable, index):
    """Whatever small variable of the file or of the compiler lies beside them."""
    side = "past the end" if index > 0 else "before the start"
    says = rf"races.cu:{line_of(name)}: .* {side} of variable '{variable}': at byte {4 * index} of 16"
    with pytest.raises(KernelError, match=says):
        launch(name, 1, 1, ints(1), index)


def test_more_threads_than_launch_bounds(launch):
    assert launch("bounded", 1, 64, ints(64))[0].all()
    says = rf"races.cu:{line_of('bounded')}: .* 65 threads a block and has __launch_bounds__\(64\)"
    with pytest.raises(KernelError, match=says):
        launch("bounded", 1, 65, ints(65))


def test_blocks_that_wait_for_one_that_cannot_begin(launch):
    """One SM holds 32 blocks; the 33rd would begin when one of them has ended."""
    with pytest.raises(
        KernelError, match=rf"races.cu:{line_of('not_resident')}: .*32 blocks run side by side"
    ):
        launch("not_resident", 33, 32, ints(33))


# ---- right ----


def test_equal_values_are_no_race(launch):
    level, changed = launch("equal_values", 4, 64, ints(16), ints(1))
    assert level.tolist() == [3] * 16
    assert changed.tolist() == [1]


def test_the_last_block_reads_what_the_others_wrote(launch):
    for _ in range(2):
        assert launch("last_block", 8, 32, floats(8, 0), floats(1, 0))[1].tolist() == [36]


def test_decoupled_look_back(launch):
    x = np.arange(1, 41, dtype=np.int32)
    out = launch("look_back", 40, 32, x, ints(40), ints(40), ints(40 * 32))[3]
    assert np.array_equal(out, np.repeat(np.cumsum(x), 32))


@pytest.mark.parametrize("name", ["spin_lock", "plain_unlock"])
def test_a_lock_orders(launch, name):
    threads = 64 if name == "spin_lock" else 1
    assert launch(name, 16, threads, ints(1), ints(1))[1].tolist() == [16]


def test_a_lock_in_shared_memory_orders(launch):
    assert launch("lock_in_shared_memory", 2, 64, ints(1))[0].tolist() == [2016]


def test_co_resident_blocks_wait_for_each_other(launch):
    out = launch("grid_barrier", 8, 64, ints(8 * 64), ints(8 * 64))[1]
    assert np.array_equal(out.reshape(8, 64)[:, 0], [2, 3, 4, 5, 6, 7, 8, 1])


def test_threads_that_poll_give_way(launch):
    assert launch("volatile_flag", 1, 64, ints(1))[0].tolist() == [1]
    assert launch("relax", 1, 64, np.eye(1, 200, dtype=np.int32)[0], 200)[0].tolist() == list(range(1, 201))
    assert launch("polls_plain_memory", 2, 1, ints(1), ints(2))[1].tolist() == [1, 0]
    assert launch("polls_without_a_store", 2, 1, ints(2), ints(1))[1].tolist() == [1]


def test_a_flag_raised_after_a_fence(launch):
    assert launch("flag_after_fence", 2, 64, ints(64), ints(1), ints(64))[2].tolist() == list(range(1, 65))


def test_threads_that_returned_do_not_hold_a_barrier(launch):
    assert launch("returned_early", 1, 64, ints(48), 48)[0].tolist() == list(range(47, -1, -1))


def test_looking_before_an_atomic(launch):
    x = np.arange(256, dtype=np.int32)
    assert launch("look_before_atomic", 4, 64, x, ints(1))[1].tolist() == [255]


def test_syncwarp_of_two_halves(launch):
    expected = [(31 - t) ^ 1 for t in range(32)]
    assert launch("part_of_a_syncwarp", 1, 32, ints(32))[0].tolist() == expected


def test_padding_and_neighbouring_bytes_are_nobodys(launch):
    assert launch("padded_structs", 1, 32, ints(32))[0].tolist() == list(range(32, 0, -1))
    assert launch("neighbouring_bytes", 1, 64, np.zeros(64, np.uint8))[0].all()


def test_local_arrays_of_400_kilobytes(launch):
    assert launch("large_local", 1, 64, ints(64), 100000)[0].tolist() == [99999] * 64
