"""Launches of ``patterns.cu``, and what a device counts of them.

``python tests/patterns.py FILE`` writes what this GPU counts, a line for each pattern:
``kept/h100_patterns.jsonl``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.backends.base import Backend, Program
from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.instruments.counters import count

FILE = Path(__file__).with_name("patterns.cu")
GLOBAL, SHARED = ("global_load", "global_store"), ("shared_load", "shared_store")
GRID, BLOCK = 2, 64  # of most patterns: two warps in each of two blocks
THREADS = GRID * BLOCK
TYPES = {"char": "u1", "short": "i2", "float": "f4", "double": "f8", "float2": "(2,)f4", "float4": "(4,)f4"}


@dataclass(frozen=True)
class Pattern:
    """One launch; an ``int`` among the arguments is a kernel's int, an array is copied to the device."""

    name: str
    kernel: str
    grid: Any
    block: Any
    arguments: tuple[Any, ...]

    def counted(self, backend: Backend, program: Program) -> dict[str, list[int]]:
        """Launch it and return requests and sectors, or requests, wavefronts and conflicts, by the access."""
        arguments = [
            np.int32(given) if isinstance(given, int) else backend.to_device(given)
            for given in self.arguments
        ]
        found = count(program, self.kernel, Geometry.of(self.grid, self.block), arguments)
        row = {a: [getattr(found, a).requests, getattr(found, a).sectors] for a in GLOBAL}
        for access in SHARED:
            shared = getattr(found, access)
            row[access] = [shared.requests, shared.wavefronts, shared.bank_conflicts]
        return row


def zeros(elements: int, kind: str = "float") -> np.ndarray:
    return np.zeros(elements, TYPES[kind])


def strided() -> Iterator[Pattern]:
    """Loads and stores of each width at strides and from offsets; a stride of 0 is a broadcast."""
    steps = dict.fromkeys(TYPES, (1, 2, 3, 4, 8, 16, 32))
    steps["float"] = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 24, 31, 32)
    starts = dict.fromkeys(TYPES, (1, 2, 3)) | {"float": (1, 2, 3, 4, 7, 8, 31), "char": (1, 5, 31)}
    for kind in TYPES:
        places = [(step, 0) for step in steps[kind]] + [(1, start) for start in starts[kind]] + [(2, 1)]
        for step, start in places:
            apart, dense = zeros((THREADS - 1) * step + start + 1, kind), zeros(THREADS, kind)
            name = f"{kind}, stride {step}" + f", offset {start}" * bool(start)
            yield Pattern(f"load {name}", f"load_{kind}", GRID, BLOCK, (apart, dense, step, start))
            yield Pattern(f"store {name}", f"store_{kind}", GRID, BLOCK, (dense, apart, step, start))
        one = (zeros(4, kind), zeros(THREADS, kind), 0, 3)
        yield Pattern(f"load {kind}, broadcast", f"load_{kind}", GRID, BLOCK, one)


def indexed() -> Iterator[Pattern]:
    number = np.arange(THREADS, dtype=np.int32)
    draw = np.random.default_rng(15)
    within = np.concatenate([draw.permutation(32) + 32 * warp for warp in range(THREADS // 32)])
    indices = {
        "a permutation": draw.permutation(THREADS),
        "a permutation within the warp": within,
        "backwards": number[::-1],
        "pairs": number // 2,
        "groups of eight": number // 8,
        "anywhere": draw.permutation(4096)[:THREADS],
    }
    for name, index in indices.items():
        index, far, dense = index.astype(np.int32), zeros(4096), zeros(THREADS)
        yield Pattern(f"gather {name}", "gather", GRID, BLOCK, (far, index, dense))
        if len(set(index.tolist())) == THREADS:  # else threads would write to one place
            yield Pattern(f"scatter {name}", "scatter", GRID, BLOCK, (dense, index, far))
    for name, lanes in {"a permutation": draw.permutation(32), "pairs": number[:32] // 2}.items():
        given = (lanes.astype(np.int32), zeros(32))
        yield Pattern(f"shared gather {name}", "banks_by_index", 1, 32, given)


def partial() -> Iterator[Pattern]:
    """Some lanes of a warp, some warps of a block, some threads of a grid."""
    lanes = {"even lanes": (1, 0), "odd lanes": (1, 1), "every fourth lane": (3, 0), "one lane": (31, 5)}
    lanes |= {"lower half warps": (16, 0), "upper half warps": (16, 16), "odd warps": (32, 32)}
    for name, chosen in lanes.items():
        given = (zeros(THREADS), zeros(THREADS), *chosen)
        yield Pattern(name, "some_lanes", GRID, BLOCK, given)
        yield Pattern(f"shared {name}", "banks_of_some_lanes", 1, BLOCK, (zeros(BLOCK), *chosen))
    for n in (1, 33, 50, 100):
        yield Pattern(f"{n} of {THREADS} threads", "bounded", GRID, BLOCK, (zeros(n), zeros(n), n))
    yield Pattern("a warp and a half a block", "bounded", 3, 48, (zeros(144), zeros(144), 144))
    yield Pattern("17 threads a block", "bounded", 3, 17, (zeros(51), zeros(51), 51))
    for n in (512, 500):
        yield Pattern(f"grid stride, {n}", "grid_stride", GRID, BLOCK, (zeros(n), zeros(n), n))


def looped() -> Iterator[Pattern]:
    far, out = zeros(BLOCK * BLOCK), zeros(BLOCK)
    yield Pattern("lanes loop different counts", "different_counts", 1, BLOCK, (far, out))
    yield Pattern("lanes load in different iterations", "different_iterations", 1, BLOCK, (far, out, 8))


def structures() -> Iterator[Pattern]:
    for size in (8, 12, 16, 24):
        given = (zeros(THREADS * size // 4), zeros(THREADS))
        yield Pattern(f"fields of {size} bytes", f"fields_{size}", GRID, BLOCK, given)
    given = (zeros(THREADS * 6), zeros(THREADS))
    yield Pattern("one field of 24 bytes", "one_field_24", GRID, BLOCK, given)
    given = (zeros(THREADS * 3), zeros(THREADS * 3))
    yield Pattern("structures of 12 bytes", "copy_12", GRID, BLOCK, given)


def banks() -> Iterator[Pattern]:
    """Every stride of shared memory, one warp, for stores and loads of each width."""
    for kind in TYPES:
        steps = range(1, 33) if kind in ("float", "double", "float4") else (1, 2, 3, 4, 8, 16, 32)
        for step in steps:
            given = (zeros(32, kind), step, step)
            yield Pattern(f"banks {kind}, stride {step}", f"banks_{kind}", 1, 32, given)
        yield Pattern(f"banks {kind}, broadcast", f"banks_{kind}", 1, 32, (zeros(32, kind), 1, 0))
    for tile, width in ((32, 32), (32, 33), (16, 16), (16, 17), (8, 8)):
        n = 2 * tile
        given = (zeros(n * n), zeros(n * n), n)
        yield Pattern(f"tile {tile} x {width}", f"tile_{tile}x{width}", (2, 2), (tile, tile), given)


def shared_places() -> Iterator[Pattern]:
    """Wide accesses of lanes that want each other's words, or some of them, and of some lanes only."""
    lane = np.arange(32, dtype=np.int32)
    upper = lane >= 16
    indices = {
        "pairs": lane // 2,
        "pairs but one": np.where(lane == 31, 31, lane // 2),
        "pairs in the lower half": np.where(upper, lane, lane // 2),
        "pairs by 2": lane & ~2,
        "pairs by 1, then by 2": np.where(upper, lane & ~2, lane & ~1),
        "pairs by 4": lane & ~4,
        "fours": lane // 4,
        "halves alike": lane % 16,
        "quarters alike": lane % 8,
        "pairs in one bank": lane // 2 * 16,
        "pairs in a bank for each half": lane // 2 * 16 + upper,
        "pairs, apart": lane // 2 * 2,
        "backwards": lane[::-1].copy(),
    }
    masks = {
        "even lanes": 0x55555555,
        "odd lanes": 0xAAAAAAAA,
        "every fourth lane": 0x11111111,
        "lanes without bit 1": 0x33333333,
        "lower half": 0xFFFF,
        "upper half": 0xFFFF0000,
        "first quarter": 0xFF,
        "a quarter of each half": 0xFF00FF,
        "all but one": 0xFFFFFFDF,
        "some": 0x0F3CA581,
    }
    for kind in ("float2", "float4"):
        for name, index in indices.items():
            given = (index.astype(np.int32), zeros(32, kind), -1)
            yield Pattern(f"places {kind}, {name}", f"places_{kind}", 1, 32, given)
        for name, mask in masks.items():
            given = (lane, zeros(32, kind), int(np.int64(mask).astype(np.int32)))
            yield Pattern(f"places {kind}, {name}", f"places_{kind}", 1, 32, given)


def guarded() -> Iterator[Pattern]:
    """Branches that some warps do not enter: nvcc switches the lanes off where there is little in them."""
    yield Pattern("tree", "tree", 2, 256, (zeros(2),))
    bodies = ("two_stores", "eight_stores", "load_to_shared", "either", "division", "leaders", "swap")
    for body in (*bodies, "global_store"):
        for m in (0, 20, 64):
            given = (zeros(512), zeros(512), m)
            yield Pattern(f"guarded {body}, {m}", f"guarded_{body}", 1, 64, given)


PATTERNS = {
    pattern.name: pattern
    for family in (strided, indexed, partial, looped, structures, banks, shared_places, guarded)
    for pattern in family()
}


def loaded(backend: Backend) -> Program:
    return backend.load(read(FILE))


def main(path: str) -> None:
    from pytest_gpuperf.backends.cuda.device import CudaBackend

    backend = CudaBackend()
    program = loaded(backend)
    with open(path, "w") as file:
        for name, pattern in PATTERNS.items():
            file.write(json.dumps({"pattern": name, **pattern.counted(backend, program)}) + "\n")
    print(f"{len(PATTERNS)} patterns on {backend.device_name}, {backend.software()}, nvcc", end=" ")
    print(backend.compiler_version)


if __name__ == "__main__":
    main(sys.argv[1])
