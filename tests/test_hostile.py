"""Files that are broken or mean harm: one sentence, in bounded time, and nothing that acts when printed."""

from __future__ import annotations

import copy
import datetime
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from once import run_once

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Milestone, Run, TestKey
from pytest_gpuperf.records import Record
from pytest_gpuperf.report.calibration import expectation, report
from pytest_gpuperf.report.message import explain
from pytest_gpuperf.rules.calibration import calibrate
from pytest_gpuperf.rules.case import Case, Replicas
from pytest_gpuperf.rules.decide import Evidence, decide, screen
from pytest_gpuperf.rules.tolerances import matches
from pytest_gpuperf.rules.trial import RecordedRun, RecordedTest
from pytest_gpuperf.rules.waivers import parse_quarantine
from pytest_gpuperf.storage import format
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.storage.calibrations import append_run, parse_runs, read_result, save_result
from pytest_gpuperf.storage.entries import baselines_of
from pytest_gpuperf.text import inert

TIME = Metric("time", "s", "lower", "noisy", "device_time")
SECTORS = Metric("k global_load.sectors", "1", "lower", "exact", "counters")
ENVIRONMENT = {
    "commit": "0a1b2c",
    "date": "2026-08-01T12:00:00+00:00",
    "device_name": "NVIDIA H100",
    "device_uuid": "GPU-1",
    "compiler": "nvcc 13.0",
    "gpus": 2,
    "sentinels": {"bandwidth_s": 7e-5, "compute_s": 5.6e-4, "launch_s": 3e-6, "sm_mhz": 1980.0, "code": "c"},
    "versions": {"numpy": "2.4"},
}
PLACE = {"backend": "cuda", "gpu": "NVIDIA H100"}
CONTRACT = {"dtype": "float32", "n": 8192}
ESCAPE = "x\n::set-output name=a::b\x1b[2J\r\u2028\u202e##[add-mask]y"
HOSTILE = (
    None, True, 0, -1, 1, 10**400, -(10**30), 1e308, 5e-324, 1e-30, 1e30, 1e-29, 0.5, [], {}, [1],
    {"a": {}}, "", "x", "\ud800", ESCAPE, "9" * 40, "[" * 30, json.loads("[" * 24 + "]" * 24),
)  # fmt: skip


PIECES = (b"", b"\xff", b"{", b'"', b"\n", b"1e999", b"\\ud800")


def record(seconds: float, sectors: float = 4.0, **environment: Any) -> Record:
    measured = (
        Measurement(TIME, CONTRACT, (seconds, seconds * 1.001), "c0de"),
        Measurement(SECTORS, CONTRACT, (sectors,)),
    )
    return Record(measured, PLACE, {}, {**ENVIRONMENT, **environment})


def entries() -> dict[str, dict[str, Baseline]]:
    runs = tuple(Run((1e-4 + i * 1e-8, 1.01e-4), ENVIRONMENT, "c0de") for i in range(5))
    mark = Milestone(1e-4, "2026-08-01", "0a1b2c")
    time_ = Baseline(TIME, CONTRACT, PLACE, 6e-4, runs, mark, mark, runs[:1])
    sectors = Baseline(SECTORS, CONTRACT, PLACE, 0.0, (Run((4.0,), ENVIRONMENT),))
    return {"test_a[1-x]": {TIME.name: time_, SECTORS.name: sectors}}


# --------------------------------------------------------------------------- thousands of mutations


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document, with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutated(text: str, dice: random.Random) -> bytes:
    """The text with one to three things changed: a value, a key, or bytes."""
    if dice.random() < 0.25:
        data = bytearray(text.encode())
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 3)] = dice.choice(PIECES)
        return bytes(data[: dice.randrange(len(data))] if dice.random() < 0.2 else data)
    document = json.loads(text)
    for _ in range(dice.randint(1, 3)):
        where, key = dice.choice(list(places(document)))
        kind = dice.randrange(4)
        if kind == 0:
            del where[key]
        elif kind == 1 and isinstance(where, dict):
            where[dice.choice([ESCAPE, "\ud800", "", "x"])] = where.pop(key)
        else:
            where[key] = copy.deepcopy(dice.choice(HOSTILE))
        if not document:
            break
    return json.dumps(document).encode()


def acts(text: str) -> bool:
    """Whether printed text would do anything but stand there."""
    lines = [line for line in text.splitlines() if line.strip().startswith("::") or "##[" in line]
    return bool(lines or re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800-\udfff]", text))


def tried(text: str, use: Callable[[bytes], str], times: int, seed: int) -> int:
    """How many of so many mutations were refused. What is refused, or printed of the others, is harmless."""
    dice, refused = random.Random(seed), 0
    for _ in range(times):
        data = mutated(text, dice)
        try:
            shown = use(data)
        except GpuperfError as error:
            refused, shown = refused + 1, str(error)
            assert "\n" not in shown, data
        assert not acts(shown), data
    return refused


def judged(data: bytes) -> str:
    """What is printed of a red test that a baseline file judges."""
    found = baselines_of(format.parse(data, "b.json"))
    texts = []
    for name, stored in found.items():
        now, again = record(1.2e-4, 8.0), [record(1.2e-4 + i * 1e-8, 8.0) for i in range(4)]
        key, tolerances = TestKey("suites/test_a.py", name), {TIME.name: 0.02, SECTORS.name: 0.0}
        case = Case(key=key, unit="GPU-1", stored=stored, due=stored, tolerances=tolerances, strict=True)
        screen(case, now)
        for row in decide(case, now, Evidence(replicas=Replicas(again))):
            texts.append(f"{row.test}\n{explain([row], case, now)}")
    return "\n".join(texts)


def test_a_baseline_file(tmp_path):
    path = Store(tmp_path).save("h100", "suites/test_a.py", entries())
    assert "regressed" in judged(path.read_bytes())
    refused = tried(path.read_text(), judged, 3000, seed=1)
    assert 1000 < refused < 2900


def test_a_calibration_and_the_runs_it_is_made_of(tmp_path):
    path = tmp_path / "runs.jsonl"
    for i in range(10):
        test = RecordedTest("h100", {TIME.name: 0.02}, record(1e-4 + i * 1e-8))
        append_run(path, {"suites/test_a.py::test_a": test})
    lines = path.read_text().splitlines()
    (found,) = calibrate(parse_runs(path.read_bytes(), path), 5)
    stored = save_result(tmp_path, found)

    def shown(data: bytes) -> str:
        stored.write_bytes(data)
        again = read_result(stored)
        return f"{expectation(again)}\n{report(again)}"

    def runs_in(data: bytes) -> list[RecordedRun]:
        return parse_runs(data, path)

    assert "red runs" in shown(stored.read_bytes())
    assert tried(stored.read_text(), shown, 1500, seed=2) > 400
    assert tried(lines[0], lambda data: "" * len(runs_in(data)), 1500, seed=3) > 400
    dice = random.Random(4)
    for _ in range(20):  # the whole way, of which a draw takes longer
        changed = [mutated(line, dice) if dice.random() < 0.3 else line.encode() for line in lines]
        with suppress(GpuperfError):
            assert not any(map(acts, map(report, calibrate(runs_in(b"\n".join(changed)), 5))))


QUARANTINE = """
[[quarantine]]
test = "suites/test_a.py::test_a*"
pool = "h100"
reason = "driver 580"
owner = "me"
expires = 2026-08-30
"""


def test_a_quarantine_file():
    dice, refused = random.Random(5), 0
    pieces = [
        "[[",
        "]]",
        "{",
        '"""',
        "\\ud800",
        '"\\u001b[2J"',
        '"\\n::error::"',
        "##[x]",
        *QUARANTINE.split(),
    ]
    for _ in range(3000):
        at, text = dice.randrange(len(QUARANTINE)), QUARANTINE
        text = text[:at] + dice.choice(pieces) * dice.choice((1, 1, 50)) + text[at + dice.randrange(4) :]
        try:
            found = parse_quarantine(text, "q.toml", datetime.date(2026, 8, 1))
        except GpuperfError as error:
            refused, shown = refused + 1, str(error)
        else:
            shown = inert(" ".join(map(str, found)))
        assert "\n" not in shown
        assert not acts(shown)
    assert 1000 < refused < 2900


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=" + "[" * 3000 + "]" * 3000, "line 1 has more than 2000 characters"),
        ("a=" + "[\n" * 3000 + "]" * 900, "nested too deeply"),
        ("\n".join(["a" + ".a" * 900 + " = 1"] * 140), "q.toml"),
        ("a" + ".a" * 100_000 + " = 1", "line 1 has more than 2000 characters"),
    ],
    ids=["nested on a line", "nested", "many long keys", "a long key"],
)
def test_a_quarantine_file_that_would_take_long(text: str, words: str):
    start = time.monotonic()
    with pytest.raises(GpuperfError, match=re.escape(words)):
        parse_quarantine(text, "q.toml", datetime.date(2026, 8, 1))
    assert time.monotonic() - start < 5


def test_a_glob_of_many_stars_is_matched_at_once():
    start = time.monotonic()
    assert not matches("*a" * 30 + "b", "a" * 200)
    assert matches("*a*b?[*]*", "xxaxxbx[1]x")
    assert not matches("a*ab", "ab")
    assert time.monotonic() - start < 1


# --------------------------------------------------------------------------- whole runs


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An exact figure that is twice its baseline's."""
    (pytester.path / "baselines").mkdir()
    pytester.makepyfile(test_suite="def test_a(gpuperf): gpuperf.record('x', 1.0, kind='exact')\n")
    assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0
    pytester.makepyfile(test_suite="def test_a(gpuperf): gpuperf.record('x', 2.0, kind='exact')\n")
    return pytester


FILE = "baselines/cpu/test_suite.json"


def put(project: pytest.Pytester, name: str, kind: str) -> None:
    """In the place of a file of the project: a FIFO, a device, a link out, something too large or broken."""
    path, victim = project.path / name, project.path / "victim"
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link out":
        victim.write_text("secret = 1\n")
        path.symlink_to(victim)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(300 << 20)
    elif kind == "surrogate":
        path.write_text('{"schema": 1, "pool": "\\ud800", "suite": "\\ud800", "runs": {}, "entries": {}}')


def one_sentence(result: pytest.RunResult, status: int, *words: str) -> None:
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == status, output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert "secret" not in output
    assert any(all(word in line for word in words) for line in output.splitlines()), output


KINDS = ("fifo", "device", "link out", "large", "surrogate")


@pytest.mark.parametrize(
    ("kind", "workers"),
    [*((kind, ()) for kind in KINDS), *((kind, ("-p", "xdist", "-n1")) for kind in ("fifo", "surrogate"))],
)
@pytest.mark.parametrize(("file", "code"), [(FILE, 1), ("baselines/quarantine.toml", 4)])
def test_a_run_with_a_bad_file(project: pytest.Pytester, kind: str, workers: tuple[str, ...], file, code):
    put(project, file, kind)
    said = f"{file.rpartition('/')[2]}: "
    one_sentence(project.runpytest_subprocess("--gpuperf", *workers, timeout=60), code, said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_bad_calibration_and_with_bad_runs(project: pytest.Pytester, kind: str):
    put(project, "baselines/cpu.calibration.json", kind)
    one_sentence(project.runpytest_subprocess("--gpuperf", timeout=60), 1, "gpuperf: ", "calibration.json: ")
    put(project, "runs.jsonl", kind)
    read = project.runpytest_subprocess("--gpuperf-calibrate=runs.jsonl", timeout=60)
    one_sentence(read, 4, "runs.jsonl: ")


@pytest.mark.parametrize("linked", [FILE, "baselines/cpu"])
def test_an_update_writes_through_no_link(project: pytest.Pytester, tmp_path: Path, linked: str):
    path, victim = project.path / linked, tmp_path / "victim"
    path.rename(tmp_path / "kept")
    path.symlink_to(victim)
    if not path.suffix:
        victim.mkdir()
    result = project.runpytest_subprocess("--gpuperf", "--gpuperf-update")
    one_sentence(result, 1, f"{path.name}", "A link leads out of ")
    assert not victim.exists() or not list(victim.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(project: pytest.Pytester):
    folder = project.path / "baselines"
    folder.chmod(0)
    try:
        one_sentence(project.runpytest_subprocess("--gpuperf"), 4, "Permission denied")
    finally:
        folder.chmod(0o755)


def test_a_root_folder_that_cannot_hold_a_calibrations_runs(project: pytest.Pytester, tmp_path: Path):
    (project.path / ".gpuperf").symlink_to(tmp_path)
    result = project.runpytest_subprocess("--gpuperf", "--gpuperf-calibrate=10", "--gpuperf-runs=3")
    one_sentence(result, 1, ".gpuperf: cannot be made", "A link leads out of")
    assert not list(tmp_path.iterdir())


def test_what_files_say_starts_no_line_and_moves_no_cursor(project: pytest.Pytester):
    document = json.loads((project.path / FILE).read_text())
    for part in ("tests", "entries"):
        document[part][ESCAPE] = document[part]["test_a"]
    document["runs"] = {name: {**run, "device_name": ESCAPE} for name, run in document["runs"].items()}
    (project.path / FILE).write_text(json.dumps(document))
    told = {"test": f"*{ESCAPE}", "pool": "*", "reason": f"::error::{ESCAPE}", "owner": ESCAPE}
    day = datetime.date.today() + datetime.timedelta(days=3)
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
    (project.path / "baselines/quarantine.toml").write_text(
        "\n".join(["[[quarantine]]", *lines, f"expires = {day}"])
    )
    flags = ("--gpuperf", "--gpuperf-strict=on", "--junitxml=junit.xml", "-rA")
    result = project.runpytest_subprocess(*flags)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["regressed: x x2*", "quarantine.toml: entry 1, *", "*x\\n::set-*"])
    for text in (result.stdout.str(), result.stderr.str(), (project.path / "junit.xml").read_text()):
        assert not acts(text)
