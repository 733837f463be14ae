"""The callbacks by themselves, with a LoadGen that only keeps what it is told."""

from __future__ import annotations

import ctypes
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf.callbacks import Callbacks
from pytest_gpuperf.mlperf.library import SampleLibrary
from pytest_gpuperf.mlperf.phase import notes_of

BATCH = 4


class LoadGen:
    """Keeps the class of every completed sample; ``on_complete`` is called before it returns."""

    def __init__(self, on_complete=lambda: None):
        self.answers, self.batches, self.on_complete = {}, [], on_complete

    class QuerySampleResponse:
        """Points to an answer, which is read when its query is completed."""

        def __init__(self, identity, address, size):
            self.id, self.address, self.size = identity, address, size

    def QuerySamplesComplete(self, responses):
        self.on_complete()
        self.batches.append(len(responses))
        for response in responses:
            assert response.id not in self.answers, "completed twice"
            data = ctypes.string_at(response.address, response.size)
            self.answers[response.id] = int(np.frombuffer(data, np.int64)[0])


def tens():
    """Images of one number, which is ten times their index."""
    dataset = SimpleNamespace(images=lambda indices: 10.0 * np.array(indices)[:, None])
    return SampleLibrary(dataset, np.float32, lambda images: lambda: None)


def callbacks(loadgen, run=lambda images: images[:, 0].astype(np.int64), workers=()):
    """A model that answers with its images' first number."""
    made = Callbacks(loadgen, workers or [SimpleNamespace(run=run)], tens(), BATCH)
    made.load(range(32))
    return made


@pytest.mark.parametrize("count", [1, 3, 4, 5, 30])
def test_every_sample_is_completed_once_with_its_own_class(count):
    loadgen = LoadGen()
    called = callbacks(loadgen)
    called.issue(range(100, 100 + count), range(count))
    assert called.failure is None
    assert loadgen.answers == {100 + index: 10 * index for index in range(count)}
    assert sum(loadgen.batches) == count
    assert max(loadgen.batches) <= BATCH
    if count > BATCH:  # the clock of a query in parts; a query of one batch has LoadGen's trace
        assert sum(size for _, size in called.completions) == count
    times = [time for time, _ in called.completions]
    assert times == sorted(times)


def test_a_dataset_prepares_itself_and_each_step_is_progress():
    called, seen = callbacks(LoadGen()), []

    def prepare(progress):
        for done in (1, 2):
            before = called.progress
            progress(done, 3)
            seen.append((called.loading, called.done, called.wanted, called.progress > before))
        called.abandoned = True
        progress(3, 3)

    with pytest.raises(GpuperfError, match="the phase was given up while images were loaded"):
        called.prepare(SimpleNamespace(name="mine", prepare=prepare))
    assert seen == [("decoded", 1, 3, True), ("decoded", 2, 3, True)]
    with pytest.raises(GpuperfError, match=r"^mine: prepare\(\) failed: ZeroDivisionError: division by zero"):
        called.prepare(SimpleNamespace(name="mine", prepare=lambda progress: 1 / 0))
    called.prepare(SimpleNamespace(name="one that has nothing to prepare"))


def test_the_next_batch_runs_while_loadgen_takes_in_the_last():
    """The second batch waits until LoadGen is being told of the first, and LoadGen until the second runs."""
    telling, running, in_time = threading.Event(), threading.Event(), []

    def run(images):
        if images[0, 0] == 10 * BATCH:
            in_time.append(telling.wait(20))
            running.set()
        return images[:, 0].astype(np.int64)

    def told():
        telling.set()
        in_time.append(running.wait(20))

    called = callbacks(LoadGen(told), run)
    called.issue(range(3 * BATCH), range(3 * BATCH))
    assert called.failure is None
    assert in_time == [True] * 4


def test_a_query_of_one_batch_reuses_the_last_responses():
    """Making them anew is a third of LoadGen's and Python's part in the latency of a small query."""
    made, loadgen = [], LoadGen()
    real = loadgen.QuerySampleResponse
    loadgen.QuerySampleResponse = lambda *given: made.append(given) or real(*given)
    called = callbacks(loadgen)
    for turn in range(5):
        called.issue([10 * turn, 10 * turn + 1], [turn, turn + 7])
    assert len(made) == 2
    assert loadgen.answers == {
        10 * turn + place: 10 * (turn + 7 * place) for turn in range(5) for place in range(2)
    }


@pytest.mark.parametrize("names", ["a", "ab"])
def test_workers_capture_their_graphs_in_turn_before_any_runs(names):
    """A capture is broken by what another thread does on a device meanwhile; however long it takes."""
    seen, busy, here = [], threading.Lock(), threading.current_thread().name

    def worker(name):
        def capture(size):
            assert busy.acquire(blocking=False), "two at once"
            assert called.progress > time.perf_counter() + 600
            time.sleep(0.01)
            seen.append((name, size, threading.current_thread().name.split("_")[0]))
            busy.release()

        def run(images):
            seen.append("run")
            return images[:, 0].astype(np.int64)

        return SimpleNamespace(run=run, captures=[partial(capture, 1), partial(capture, 8)])

    called = callbacks(LoadGen(), workers=[worker(name) for name in names])
    called.start(lambda: seen.append("prepared"))
    assert called.progress <= time.perf_counter()
    called.issue(range(2 * BATCH), range(2 * BATCH))
    called.stop()
    assert called.failure is None
    threads = [here] if names == "a" else ["worker-0", "worker-1"]  # LoadGen's own, for a single worker
    captures = [(name, size, at) for name, at in zip(names, threads, strict=True) for size in (1, 8)]
    assert seen == [*captures, "prepared", "run", "run"]


def test_several_workers_share_a_query_on_threads_of_their_own():
    meeting, threads = threading.Barrier(2), {}

    def worker(place):
        def run(images):
            if place not in threads:
                meeting.wait(20)  # both are at work at once
            threads.setdefault(place, set()).add(threading.current_thread().name)
            return images[:, 0].astype(np.int64)

        return SimpleNamespace(run=run)

    loadgen = LoadGen()
    called = callbacks(loadgen, workers=[worker(0), worker(1)])
    warmed = called.start(lambda: called.on_each(lambda each: threading.current_thread().name))
    called.issue(range(100, 130), range(30))
    called.stop()
    assert called.failure is None
    assert loadgen.answers == {100 + index: 10 * index for index in range(30)}
    assert [threads[0], threads[1]] == [{name} for name in warmed]  # where they were warmed up
    assert len(set(warmed)) == 2


def test_a_worker_that_copies_held_images_knows_their_place():
    asked = []

    def run_held(parts):
        asked.append(parts)
        return np.arange(sum(count for _, count in parts))

    called = callbacks(LoadGen(), workers=[SimpleNamespace(run_held=run_held, run=None)])
    called.load([9, 4, 5, 6, 31])  # in LoadGen's order
    called.issue([1], [5])
    called.issue([2, 3, 4], [9, 4, 5])
    called.issue([5, 6, 7, 8], [31, 4, 5, 9])
    assert called.failure is None
    assert asked == [[(2, 1)], [(0, 3)], [(4, 1), (1, 2), (0, 1)]]


def test_a_query_of_one_batch_is_completed_where_it_runs():
    """A stream's latency has no other thread in it."""
    threads = []
    called = callbacks(LoadGen(lambda: threads.append(threading.current_thread())))
    called.issue(range(BATCH), range(BATCH))
    assert threads == [threading.current_thread()]


def test_after_a_failure_the_rest_is_completed_unanswered():
    def run(images):
        if images[0, 0] >= 40:
            raise ValueError("the model broke")
        return images[:, 0].astype(np.int64) + 1

    loadgen = LoadGen()
    called = callbacks(loadgen, run)
    called.issue(range(12), range(12))
    assert str(called.failure) == "the model broke"
    assert loadgen.answers == {**{i: 10 * i + 1 for i in range(4)}, **dict.fromkeys(range(4, 12), 0)}


def test_what_loadgen_raises_is_kept_and_stays_in_the_callback():
    def refuse():
        raise RuntimeError("refused")

    for count in (1, 9):
        called = callbacks(LoadGen(refuse))
        called.issue(range(count), range(count))
        assert str(called.failure) == "refused"


def library(images):
    return SampleLibrary(SimpleNamespace(name="mine", images=images), np.float32, lambda images: lambda: None)


def test_notes_of_a_dataset_are_texts():
    assert notes_of(SimpleNamespace(name="mine")) == ()
    assert notes_of(SimpleNamespace(name="mine", notes="cut off")) == ("cut off",)
    assert notes_of(SimpleNamespace(name="mine", notes=["a", "b"])) == ("a", "b")
    for notes in (None, [1], {}.keys):
        with pytest.raises(GpuperfError, match=r"^mine: notes=.*; give texts, or leave it out"):
            notes_of(SimpleNamespace(name="mine", notes=notes))


def test_images_are_read_in_pieces_and_each_is_progress():
    asked, ticks = [], []

    def images(indices):
        asked.append(len(indices))
        return np.array(indices, np.float32)[:, None]

    loaded = library(images)
    loaded.load([5, 3, *range(10, 300), 5], lambda *progress: ticks.append(progress))
    assert loaded.batch([3, 10, 299]).tolist() == [[3], [10], [299]]
    assert (asked[0], max(asked), sum(asked)) == (1, 64, 292)  # the repeated one is read once
    assert len(ticks) == len(asked)
    assert (ticks[0], ticks[-1]) == ((1, 292), (292, 292))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (lambda indices: np.zeros((len(indices) + 1, 2)), r"asked for 1 and gave float64 \[2, 2\]"),
        (lambda indices: 1 / 0, r"images\(\) failed: ZeroDivisionError: division by zero"),
        (
            lambda indices: [[1], [1, 2]][indices[0] :],
            "gave images of several shapes; it must return one array",
        ),
        (lambda indices: ["a"] * len(indices), r"asked for 1 and gave <U1 \[1\]"),
        (lambda indices: np.zeros((len(indices), 2 if 0 in indices else 3)), r"image 1 has the shape \[3\]"),
    ],
)
def test_images_of_another_number_or_form_are_one_sentence(images, said):
    with pytest.raises(GpuperfError, match=f"^mine: .*{said}"):
        library(images).load(range(4))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (lambda indices: dict.fromkeys("ab"[: indices[0] + 1], indices), "gave a, b for image 1, and a for"),
        (lambda indices: {"a": indices} if 0 in indices else indices, "gave one array for image 1, and a"),
        (lambda indices: {}, "gave a dict without an array"),
    ],
)
def test_samples_have_the_same_arrays(images, said):
    dataset = SimpleNamespace(name="mine", images=images)
    with pytest.raises(GpuperfError, match=rf"^mine: images\(\) {said}"):
        SampleLibrary(dataset, None, lambda images: lambda: None).load(range(4))


@pytest.mark.parametrize(
    ("images", "dtype", "said"),
    [
        (lambda indices: np.array(indices) - 2, np.uint8, "gave int64 from -2 to -2, which uint8, the"),
        (lambda indices: np.array(indices) << 40, np.int32, "gave int64 from .*, which int32, the model's"),
        (lambda indices: np.array(indices), np.bool_, "gave int64 from 1 to 3, which bool, the model's type"),
        (lambda indices: np.array(indices) / 2 if 1 in indices else indices, None, "image 1 is float64"),
    ],
)
def test_numbers_are_never_cut_to_fit(images, dtype, said):
    dataset = SimpleNamespace(name="mine", images=images)
    with pytest.raises(GpuperfError, match=f"^mine: .*{said}"):
        SampleLibrary(dataset, dtype, lambda images: lambda: None).load(range(4))
    wide = SampleLibrary(dataset, np.float32, lambda images: lambda: None)
    wide.load(range(4))  # a float may round
