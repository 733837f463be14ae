"""A test's markers, read from its source: what can be read, and what only running it would tell."""

from __future__ import annotations

import textwrap

import pytest

from pytest_gpuperf.rules.stated import Stated, stated

HEAD = (
    "import pytest\nfrom hypothesis import given\nfrom common import LOOSE, slow\nfrom pytest import mark\n"
)


def read(source: str, *names: str) -> Stated | None:
    text = HEAD + textwrap.dedent(source)
    return stated(text, names or ("test_it",), lambda module: module in ("common", "."))


@pytest.mark.parametrize(
    ("source", "tolerance", "until"),
    [
        ("def test_it(): pass", None, None),
        ("@pytest.mark.gpuperf(tolerance=0.1)\ndef test_it(): pass", 0.1, None),
        ("@mark.gpuperf(expected='w', until='2026-12-31')\nasync def test_it(): pass", None, "2026-12-31"),
        ("T = 0.1\n@mark.gpuperf(tolerance=T)\ndef test_it(): pass", 0.1, None),
        ("loose = mark.gpuperf(tolerance=0.1)\n@loose\ndef test_it(): pass", 0.1, None),
        ("pytestmark = [mark.slow, mark.gpuperf(tolerance=0.1)]\ndef test_it(): pass", 0.1, None),
        (
            "pytestmark = mark.gpuperf(tolerance=0.1)\n@mark.gpuperf(tolerance=0.2)\ndef test_it(): 0",
            0.2,
            None,
        ),
        ("@mark.gpuperf(tolerance=0.1)\n@mark.gpuperf(tolerance=0.2)\ndef test_it(): pass", 0.2, None),
        (
            "@given(1)\n@mark.skipif(LOOSE, reason='x')\n@mark.gpuperf(l2='cold')\ndef test_it(x): 0",
            None,
            None,
        ),
        ("if 1:\n  @mark.gpuperf(tolerance=0.1)\n  def test_it(): pass", 0.1, None),
        ("def test_it(): pass\n@mark.gpuperf(tolerance=0.1)\ndef test_it(): pass", 0.1, None),
        ("def own(f): return f\n@own\ndef test_it(): pass", None, None),
    ],
)
def test_what_is_written_out_is_read(source: str, tolerance: float | None, until: str | None):
    found = read(source)
    assert found is not None
    assert (found.tolerance, found.until, found.unknown) == (tolerance, until, "")


def test_a_class_gives_its_tests_its_markers():
    source = """
        @mark.gpuperf(tolerance=0.1)
        class TestA:
            def test_it(self): pass
            class TestB:
                pytestmark = mark.gpuperf(tolerance=0.2)
                def test_it(self): pass
        """
    for names, tolerance in ((("TestA", "test_it"), 0.1), (("TestA", "TestB", "test_it"), 0.2)):
        found = read(source, *names)
        assert found is not None
        assert found.tolerance == tolerance
    assert read(source) is None


@pytest.mark.parametrize(
    ("source", "unknown"),
    [
        ("@mark.gpuperf(tolerance=LOOSE)\ndef test_it(): pass", "LOOSE"),
        ("@mark.gpuperf(tolerance=float('0.1'))\ndef test_it(): pass", "float('0.1')"),
        ("@mark.gpuperf(**{'tolerance': 0.1})\ndef test_it(): pass", "{'tolerance': 0.1}"),
        ("@slow\ndef test_it(): pass", "slow"),
        ("@slow(0.1)\ndef test_it(): pass", "slow(0.1)"),
        ("def own(f): return mark.gpuperf(tolerance=0.1)(f)\n@own\ndef test_it(): pass", "own"),
        ("T = 0.1\nT = 0.2\n@mark.gpuperf(tolerance=T)\ndef test_it(): pass", "T"),
        (
            "@mark.parametrize('n', [pytest.param(1, marks=mark.gpuperf(tolerance=0.1))])\n"
            "def test_it(n): pass",
            "mark.parametrize('n', [pytest.param(1, marks=mark.gpuperf(tolerance=0.1))])",
        ),
        (
            "pytestmark = [mark.gpuperf()] if LOOSE else []\ndef test_it(): 0",
            "[mark.gpuperf()] if LOOSE else []",
        ),
    ],
)
def test_what_is_computed_is_not_known(source: str, unknown: str):
    found = read(source)
    assert found is not None
    assert found.unknown == unknown


def test_a_base_class_with_markers_is_not_known():
    base = "class Base:\n  pytestmark = mark.gpuperf(tolerance=0.1)\n"
    found = read(f"{base}class TestA(Base):\n  def test_it(self): pass", "TestA", "test_it")
    assert found is not None
    assert found.unknown == "Base"


def test_the_text_is_that_of_every_name_in_the_markers():
    made = "def loose(): return {}\n@mark.gpuperf(tolerance=loose())\ndef test_it(): {}\n"
    first, body, other = (read(made.format(*each)) for each in ((1, 1), (1, 2), (2, 1)))
    assert first is not None
    assert body is not None
    assert other is not None
    assert first.text == body.text != other.text
    imported = read("@mark.gpuperf(tolerance=LOOSE)\ndef test_it(): pass")
    assert imported is not None
    assert imported.modules == {"common", "pytest"}
