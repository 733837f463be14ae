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
METRICS, SAMPLES = 6, 200
MEASURED = f"""
import pytest

@pytest.mark.parametrize("number", range(250))
def test_size(gpuperf, number):
    for name in range({METRICS}):
        gpuperf.record(f"size{{name}}", [1 + number + i / 1000 for i in range({SAMPLES})], "MB")
"""
PLAIN = """
import pytest

@pytest.mark.parametrize("number", range(250))
def test_size(tmp_path_factory, number): pass
"""


def bytes_a_test(pytester: pytest.Pytester, *flags: str, tests: int = 250) -> float:
    """What each test after the first fifty leaves in the session's memory."""
    assert pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *flags).ret == 0
    seen = json.loads((pytester.path / "seen.json").read_text())
    assert len(seen) == tests
    assert len({tuple(held) for _, *held in seen[20:]}) == 1, "descriptors or threads"
    return (seen[-1][0] - seen[49][0]) / (tests - 50)


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


def test_a_session_keeps_of_a_figure_what_its_summary_needs(pytester: pytest.Pytester, bare: None):
    """pytest itself keeps 3 KB of a test, its reports; the samples of one figure would be 5 KB."""
    pytester.makeconftest(LOOKS)
    pytester.makepyfile(test_size=PLAIN)
    floor = bytes_a_test(pytester, "--gpuperf", "--gpuperf-strict=off")
    pytester.makepyfile(test_size=MEASURED)
    kept = bytes_a_test(pytester, "--gpuperf", "--gpuperf-strict=off")
    assert (kept - floor) / METRICS < 800


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


def test_200_children_leave_nothing_open_and_little_in_memory(pytester: pytest.Pytester, bare: None):
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
    assert bytes_a_test(pytester, "--gpuperf", "--gpuperf-strict=off", tests=200) < 8000
