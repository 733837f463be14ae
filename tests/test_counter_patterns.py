"""The emulator's model against what an H100 counted of every kind of access.

``kept/h100_patterns.jsonl`` is ``python tests/patterns.py FILE``'s, of an H100 by CUPTI.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from patterns import GLOBAL, PATTERNS, SHARED, loaded

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.errors import Unavailable

TABLE = Path(__file__).parent / "kept/h100_patterns.jsonl"
KEPT = {row.pop("pattern"): row for row in map(json.loads, TABLE.read_text().splitlines())}

UNENTERED = ("two_stores", "load_to_shared", "leaders", "swap", "global_store")
OTHERWISE = {
    f"guarded {body}, 0": "nobody enters the branch, so the model cannot know whose memory it accesses"
    for body in UNENTERED
} | {"guarded either, 20": "nvcc makes one store of both branches'"}


def replayed():
    for name in KEPT:
        marks = pytest.mark.xfail(strict=True, reason=OTHERWISE[name]) if name in OTHERWISE else ()
        yield pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def program(backend: Backend):
    return loaded(backend)


@pytest.mark.parametrize("name", list(replayed()))
def test_the_model_counts_what_a_gpu_counted(backend, program, name):
    assert PATTERNS[name].counted(backend, program) == KEPT[name]


@pytest.mark.gpu
def test_a_gpu_counts_what_the_table_has():
    from pytest_gpuperf.backends.cuda.device import CudaBackend

    cuda = CudaBackend()
    compiled = loaded(cuda)
    try:
        found = {name: pattern.counted(cuda, compiled) for name, pattern in PATTERNS.items()}
    except Unavailable as error:
        pytest.skip(str(error))
    assert {name: row for name, row in found.items() if row != KEPT[name]} == {}


def test_the_table_has_every_pattern_and_no_other():
    assert list(KEPT) == list(PATTERNS)


@pytest.mark.parametrize("access", [*GLOBAL, *SHARED])
def test_the_table_has_good_and_bad_accesses_of_every_kind(access):
    """A table of what was counted nowhere would hold the model to nothing."""
    of_each = {name: row[access][1] / row[access][0] for name, row in KEPT.items() if row[access][0]}
    assert len(of_each) > 30
    assert max(of_each.values()) >= 8 * min(of_each.values()) > 0
