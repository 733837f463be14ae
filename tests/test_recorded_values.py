"""What a test may record: numbers, names and units, and what is said of anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
from gateproject import exact_project  # noqa: F401  (a fixture)


def written(pytester: pytest.Pytester, calls: Sequence[str]) -> None:
    """Write test_it.py, whose test of number N makes the call of that number, in line 3 + N."""
    pytester.makeini("[pytest]\n")
    tests = (f"def test_{number}(gpuperf): {call}\n" for number, call in enumerate(calls))
    (pytester.path / "test_it.py").write_text("import fractions\nimport numpy as np\n" + "".join(tests))


def test_other_libraries_numbers_are_numbers(pytester: pytest.Pytester):
    values = ("np.float32(2)", "np.array(2)", "np.int64(2)", "(2,)", "fractions.Fraction(4, 2)")
    record = "gpuperf.record('sectors', {}, kind='exact')"
    written(pytester, [record.format(value) for value in values])
    (pytester.path / "baselines").mkdir()
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    (file,) = (pytester.path / "baselines").rglob("*.json")
    entries = json.loads(file.read_text())["entries"]
    runs = {name: entry["sectors"]["runs"] for name, entry in entries.items()}
    stored = {name: [run["samples"] for run in each] for name, each in runs.items()}
    assert stored == {f"test_{number}": [[2.0]] for number in range(len(values))}


NO_NUMBER_OR_NAME = [
    ("'x', '123'", "give a number"),
    ("'x', b'123'", "give a number"),
    ("'x', None", "give a number"),
    ("'x', True", "give a number"),
    ("'x', ['1', '2']", "give a number"),
    ("'x', np.ones((2, 2))", "a flat sequence"),
    ("'x', bytearray(b'12')", "give a number"),
    ("'x', {1.0: 2.0}", "give a number"),
    ("'x', 1j", "give a number"),
    ("'x', np.array(['1', '2'])", "give a number"),
    ("'x', [1.0, None]", "give a number"),
    ("'x', []", "must be finite"),
    ("'x', float('nan'), kind='exact'", "must be finite"),
    ("'x', 10**400, kind='exact'", "must be finite"),
    ("'x', 0", "must be finite"),
    ("'x', 1e31", "a figure lies from 1e-30 to 1e+30"),
    ("'x', -1e31, kind='exact'", "give it in another unit"),
    ("'x', 1e-31", "give it in another unit"),
    ("'x', [1.0, 2.0], kind='exact'", "an exact number has one value, and these differ"),
    ("None, 1.0", "a name is printable text"),
    ("'x', 1.0, None", 'record("x"): unit=None; a unit is printable text'),
    ("'x', 1.0, ''", "a unit is printable text"),
    ("'x', 1.0, 's\\n'", "a unit is printable text"),
    ("'x', 1.0, b's'", "a unit is printable text"),
    ("'x', 1.0, 's', None", 'better=None; say "lower" or "higher"'),
    ("'x', 1.0, 's', kind=2", 'kind=2; say "noisy", "exact" or "shown"'),
    ("'x', 1.0, max=10**400", "is not a valid bound"),
    ("'', 1.0", "a name is printable text"),
    ("'a\\nb', 1.0", "a name is printable text"),
    ("3, 1.0", "a name is printable text"),
    ("'x', 1.0, max=np.float32('nan')", "max=nan is not a valid bound"),
]


def test_what_is_no_number_or_name_is_one_sentence(pytester: pytest.Pytester):
    """Each in a test of its own, whose failure says it."""
    written(pytester, [f"gpuperf.record({call})" for call, _ in NO_NUMBER_OR_NAME])
    result = pytester.runpytest_subprocess()
    assert result.ret == 1
    output = result.stdout.str()
    assert "Traceback" not in output
    _, *parts = re.split(
        r"^_+ test_(\d+) _+$", output.partition("= short test summary info =")[0], flags=re.M
    )
    said = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    assert said.keys() == set(range(len(NO_NUMBER_OR_NAME)))
    for number, (call, words) in enumerate(NO_NUMBER_OR_NAME):
        assert words in said[number], call


def test_what_a_timed_launch_is_told_is_checked_too(pytester: pytest.Pytester):
    told = ("name=''", "name='a\\nb'", "name=3", "bytes='12'", "flops=-1", "bytes=float('nan')", "bytes=1e31")
    written(pytester, [f"gpuperf(len, {each})" for each in told])
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated")
    assert result.ret == 1
    result.assert_outcomes(failed=len(told))
    result.stdout.fnmatch_lines([f"test_it.py:{3 + number}: gpuperf(...): *" for number in range(len(told))])


def test_text_and_numbers_of_numpy_can_be_stored(exact: pytest.Pytester):
    exact.makepyfile(
        test_exact="import numpy as np\ndef test_it(gpuperf):\n"
        "    gpuperf.record(np.str_('x'), np.ones(3), np.str_('B'), 'lower', kind=np.str_('exact'))\n"
        "    gpuperf(len, (), name=np.str_('y'), bytes=np.int64(4), flops=np.float32(2.5))\n"
    )
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    file = exact.path / "baselines" / "emulated" / "test_exact.json"
    assert json.loads(file.read_text())["entries"]["test_it"]["x"]["metric"]["unit"] == "B"


def test_a_row_says_which_way_was_taken_where_the_test_did_not(exact: pytest.Pytester):
    suite = "def test_it(gpuperf): gpuperf.record('x', {}, 'tokens/s'{}, kind='exact')\n"
    exact.makepyfile(test_exact=suite.format(100, ""))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-update")
    assert result.ret == 0
    told = 'lower is better (better= not given): for a rate such as tokens/s say better="higher"'
    result.stdout.fnmatch_lines([f"test_exact.py::test_it x: {told}"])
    exact.makepyfile(test_exact=suite.format(50, ""))
    result = exact.runpytest_subprocess("--gpuperf")
    result.stdout.fnmatch_lines(["improved *-50.00 %", f" * {told}", "* --gpuperf-update", f"  if {told}"])
    exact.makepyfile(test_exact=suite.format(200, ""))
    result = exact.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: x *", f"  better    {told}"])
    exact.makepyfile(test_exact=suite.format(100, ", better='lower'"))
    result = exact.runpytest_subprocess("--gpuperf")
    result.stdout.fnmatch_lines(["equal *"])
    assert "not given" not in result.stdout.str()


def test_a_numpy_bound_is_a_bound(exact: pytest.Pytester):
    exact.makepyfile(
        test_exact="import numpy as np\ndef test_it(gpuperf):\n"
        "    gpuperf.record('x', 2.0, kind='exact', max=np.float32(1))\n"
    )
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off").ret == 1


def test_measuring_one_name_twice_is_an_error(pytester: pytest.Pytester):
    pytester.makepyfile("def test_it(gpuperf):\n    gpuperf.record('x', 1.0)\n    gpuperf.record('x', 2.0)")
    result = pytester.runpytest("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(['test_measuring*.py:3: this test measured "x" twice*'])
