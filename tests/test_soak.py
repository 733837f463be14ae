"""A short soak: what a session holds does not grow with its tests and child processes."""

from __future__ import annotations

import json
from statistics import mean

import pytest
from recordedruns import load

soak = load("soak.py")
LOOKS = """
import gc, json, os, tracemalloc

SEEN = []

def pytest_runtest_logfinish():
    if not SEEN:
        tracemalloc.start()
    if len(SEEN) % 50 == 49:
        gc.collect()
    folders = [os.listdir(f"/proc/self/{name}") for name in ("fd", "task")]
    SEEN.append([tracemalloc.get_traced_memory()[0], *map(len, folders)])

def pytest_unconfigure():
    with open("seen.json", "w") as file:
        json.dump(SEEN, file)
"""
TESTS, FIGURES = 150, 6
PLAIN = f"""
import pytest

@pytest.fixture
def gpuperf(request): return request.node

@pytest.mark.parametrize("number", range({TESTS}))
def test_none(gpuperf, number): pass
"""
MEASURED = f"""
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_none(gpuperf, number): pass

@pytest.mark.parametrize("number", range({TESTS}))
def test_one(gpuperf, number):
    gpuperf.record("size", [1 + number + i / 1000 for i in range(200)], "MB")

@pytest.mark.parametrize("number", range({TESTS}))
def test_some(gpuperf, number):
    for name in range({FIGURES}):
        gpuperf.record(f"size{{name}}", [1 + number + i / 1000 for i in range(200)], "MB")
"""


def bytes_a_test(pytester: pytest.Pytester, *flags: str, tests: int = TESTS) -> list[float]:
    """What each test leaves in the session's memory, in every ``tests`` of a kind after the first fifty."""
    assert pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *flags).ret == 0
    seen = json.loads((pytester.path / "seen.json").read_text())
    assert len({tuple(held) for _, *held in seen[20:]}) == 1, "descriptors or threads"
    kinds = [[memory for memory, *_ in seen[at : at + tests]] for at in range(0, len(seen), tests)]
    return [(kind[-1] - kind[49]) / (tests - 50) for kind in kinds]


def test_a_session_holds_no_more_after_many_tests_and_children(backend, tmp_path):
    kept = soak.soak(tmp_path, tests=200, children=10)
    here = [row for row in kept if row.test == "test_here"]
    in_children = [row for row in kept if row.test == "test_in_a_child"]
    assert (len(here), len(in_children)) == (200, 10)
    for name in ("descriptors", "threads"):
        held = {getattr(row, name) for row in kept[20:]}
        assert len(held) == 1, f"{name}: {sorted(held)}"
    assert {row.children for row in kept} == {0}
    # What the summary says of a test stays, its samples and arrays not.
    grown = mean(row.memory for row in here[-10:]) - mean(row.memory for row in here[90:100])
    assert grown / 100 < 15_000


def test_a_session_keeps_of_a_figure_its_row(pytester: pytest.Pytester, monkeypatch):
    """pytest itself keeps 2.6 KB of a test, its reports; the samples of one figure would be 5 KB."""
    pytester.makeconftest(LOOKS)
    pytester.makepyfile(test_size=MEASURED)
    none, one, some = bytes_a_test(pytester, "--gpuperf", "--gpuperf-strict=off")
    pytester.makepyfile(test_size=PLAIN)
    monkeypatch.delenv("PYTEST_PLUGINS")
    (alone,) = bytes_a_test(pytester)
    assert none - alone < 100
    assert one - alone < 700
    assert (some - one) / (FIGURES - 1) < 400


STAND_IN = """
import json, socket, sys
link = socket.socket(fileno=int(sys.argv[-1].partition("=")[2]))
task = json.loads(link.makefile("rb").readline())
figure = {"name": "size", "unit": "MB", "better": "lower", "kind": "exact", "instrument": "record"}
taken = {"metric": figure, "contract": {}, "samples": [float(task["tests"][0].rpartition("[")[2][:-1])]}
record = {"measurements": [taken], "device": {"backend": "cpu"}, "environment": {"pid": task["tests"]}}
for nodeid in task["tests"]:
    for when in ("setup", "call", "teardown"):
        report = dict(nodeid=nodeid, location=["test_a.py", 1, "test"], keywords={}, outcome="passed",
            longrepr=None, when=when, sections=[], duration=0.0, start=0.0, stop=0.0, user_properties=[])
        if when == "call":
            report["gpuperf"] = {"record": record}
        data = {"report": {"$report_type": "TestReport", **report}}
        link.sendall(json.dumps(data).encode() + bytes([10]))
link.sendall(json.dumps({"event": "over"}).encode() + bytes([10]))
"""


def test_200_children_leave_nothing_open_and_little_in_memory(pytester: pytest.Pytester):
    (pytester.path / "stand_in.py").write_text(STAND_IN)
    pytester.makeconftest(
        LOOKS
        + """
import sys
from pytest_gpuperf.processes import child
child._interpreter = lambda checkout: [sys.executable, "-I", "-S", "stand_in.py"]  # starts in 10 ms
"""
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.gpuperf(isolated=True)
        @pytest.mark.parametrize("number", range(200))
        def test_size(number): assert not "run here"
        """
    )
    (kept,) = bytes_a_test(pytester, "--gpuperf", "--gpuperf-strict=off", tests=200)
    assert kept < 6000  # most of it pytest's own, of reports that come from elsewhere
