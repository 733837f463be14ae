"""Which way the blocks of transpose_quads walk, and how many a multiprocessor holds.

    python docs/studies/transpose_orders.py

The last table of docs/ladder.md. Each variant is the shipped kernel with one or two of its lines changed; its
result is held to NumPy. Times are medians of three turns of all variants in one process, as shares of the
device's own copy. Without a GPU only the results are checked, on small matrices.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.instruments.device_time import measure

SHIPPED = (Path(__file__).resolve().parents[2] / "kernels" / "transpose.cu").read_text()
ALONG = "    int row = blockIdx.y * 64, col = blockIdx.x * 128;\n"
DOWN = """\
    int block = blockIdx.y * gridDim.x + blockIdx.x;
    int row = block % gridDim.y * 64, col = block / gridDim.y * 128;
"""
BLOCKS = "__launch_bounds__(128, 6) transpose_quads"
TURNS = 3


def variant(walk: str, blocks: int) -> str:
    """Return the file with the walk and the blocks at a time of a variant."""
    for line in (ALONG, BLOCKS):
        assert SHIPPED.count(line) == 1, f"kernels/transpose.cu has no {line!r} any more"
    return SHIPPED.replace(ALONG, walk).replace(BLOCKS, BLOCKS.replace("6", str(blocks), 1))


def main() -> None:
    gpu = Gpu(select("auto"))
    names = {"along a row": ALONG, "down a column": DOWN}
    with tempfile.TemporaryDirectory() as folder:
        for name, walk in names.items():
            for blocks in (4, 5, 6, 7):
                (Path(folder) / f"{name}, {blocks}.cu").write_text(variant(walk, blocks))
        kernels = Kernels(Path(folder), gpu)
        files = sorted(path.name for path in Path(folder).glob("*.cu"))
        print(f"{gpu.name}\n\n| n | variant | us | share of copy |\n|---|---|---|---|")
        for side in (8192, 16384) if gpu.device.judges_times else (256,):
            src, dst = gpu.random((side, side), seed=1), gpu.empty((side, side))
            grid = side // 128, side // 64
            launches = {file[:-3]: kernels[file].transpose_quads[grid, 128] for file in files}
            launches["transpose_best"] = kernels[files[0]].transpose_best[(side // 64, side // 64), (16, 16)]
            for launch in launches.values():
                launch(src, dst, side, side)
                assert np.array_equal(dst.get(), src.get().T)
            taken: dict[str, list[float]] = {}
            for _ in range(TURNS if gpu.device.judges_times else 0):
                taken.setdefault("copy", []).append(measure(gpu, gpu.device.copy, (dst, src)).median)
                for name, launch in launches.items():
                    taken.setdefault(name, []).append(measure(gpu, launch, (src, dst, side, side)).median)
            for name, seconds in taken.items():
                share = median(taken["copy"]) / median(seconds)
                print(f"| {side} | {name} | {median(seconds) * 1e6:,.1f} | {share:.1%} |")


if __name__ == "__main__":
    main()
