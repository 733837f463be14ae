"""Text of others: printed, it stands there and does nothing."""

from __future__ import annotations

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.text import inert, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("NVIDIA H100 80GB HBM3 µs 图形 👍🏽", "NVIDIA H100 80GB HBM3 µs 图形 👍🏽"),
        ("a\nb\r\tc\x00\x1b[2J\x9b2J", r"a\nb\r\tc\x00\x1b[2J\x9b2J"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("a\ud800b", r"a\ud800b"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
    ],
)
def test_printable_text_is_one_line_that_moves_no_cursor(text: str, shown: str):
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("suites/test_a.py::TestB::test_c[::d]", "suites/test_a.py::TestB::test_c[::d]"),
        ("::error::x", ": :error::x"),
        ("a\n  ::error::x\n::b", "a\n  : :error::x\n: :b"),
        ("a ##[add-mask]b ##vso[task.x] ##teamcity[y]", "a # #[add-mask]b # #vso[task.x] # #teamcity[y]"),
        ("### a heading, a##b and #[c]", "### a heading, a##b and #[c]"),
    ],
)
def test_inert_text_commands_nothing(text: str, shown: str):
    assert inert(text) == shown
    assert inert(shown) == shown
    assert str(GpuperfError(text)) == shown
