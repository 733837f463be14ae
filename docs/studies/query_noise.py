"""What fresh processes' queries differ by: the graph on the GPU, the copies around it, or the host.

    python docs/studies/query_noise.py --processes 10

Each process opens ResNet-50 and takes, in three rounds, the median milliseconds of a query as LoadGen's are
answered (copy to the device, graph, copy back), of that copy and of the graph alone, of the graph by the
device's clock, of an empty kernel with a wait for it, and of a fixed loop of Python. Prints a row for each
process, and then how much the processes' medians differ, how much the rounds of one process do, and how far
each part goes with the query (correlation of logarithms): what is noise of the host's shows in the loop too,
and what is the GPU's in its own time of the graph. cuDNN's choice is none of it: since ONNX Runtime 1.20 even
EXHAUSTIVE asks a heuristic and times nothing (issue 22705 there). Needs a CUDA GPU and onnxruntime-gpu; about
10 seconds a process.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import correlation, fmean, median, stdev
from time import perf_counter

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
PARTS = ("query", "copy", "graph", "device", "launch", "loop")
ROUNDS, SECONDS, WARM_UP = 3, 0.4, 1.0


def measure(precision: str, batch: int) -> list[dict[str, float]]:
    """This process's median milliseconds of each part, a mapping for each round."""
    from pytest_gpuperf.backends import select
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels
    from pytest_gpuperf.instruments import device_time
    from pytest_gpuperf.mlperf import models, session

    gpu = Gpu(select("cuda"))
    handle = int(gpu.stream.handle)
    opened = session.open_session(models.resolve(), "cuda", precision, [batch], handle)  # type: ignore[arg-type]
    assert isinstance(opened, session.CudaSession)
    images = opened.model.dataset(batch).images(list(range(batch))).astype(opened.dtype)
    release, lane = opened.hold(images), opened._lanes[batch]
    empty = Kernels(KERNELS, gpu)["empty.cu"]["empty"][1, 1]

    def launch() -> None:
        empty()
        gpu.synchronize()

    parts: dict[str, Callable[[], object]] = {
        "query": lambda: opened.run(images),
        "copy": lambda: lane._input.update_inplace(images),
        "graph": lambda: lane._session.run_with_iobinding(lane._binding),
        "launch": launch,
        "loop": lambda: sum(range(10_000)),
    }
    for part in parts.values():
        typical(part, WARM_UP)
    replay = opened.replay(images)
    found = []
    for _ in range(ROUNDS):
        taken = {name: typical(part, SECONDS) for name, part in parts.items()}
        found.append({**taken, "device": 1e3 * device_time.measure(gpu, replay).median})
    release()
    gpu.close()
    return found


def typical(part: Callable[[], object], seconds: float) -> float:
    """The median milliseconds of as many calls as go into that time."""
    taken: list[float] = []
    begin = before = perf_counter()
    while before - begin < seconds:
        part()
        now = perf_counter()
        taken.append(now - before)
        before = now
    return 1e3 * median(taken)


def fresh(precision: str, batch: int) -> list[dict[str, float]]:
    command = [sys.executable, __file__, "--worker", precision, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a process failed: {done.stderr[-2000:].strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def row(rounds: Sequence[dict[str, float]]) -> str:
    return f"| {' | '.join(f'{median([each[part] for each in rounds]):.4f}' for part in PARTS)} |"


def summary(processes: Sequence[Sequence[dict[str, float]]]) -> str:
    """Markdown: a row for each part, with its spread between and within processes, and its correlation."""
    logs = {part: [[math.log(each[part]) for each in rounds] for rounds in processes] for part in PARTS}
    middles = {part: [median(rounds) for rounds in each] for part, each in logs.items()}
    lines = [
        "| part | median, ms | between processes | rounds of one | goes with the query |",
        "|---" * 5 + "|",
    ]
    for part in PARTS:
        within = fmean(stdev(rounds) for rounds in logs[part])
        if len(set(middles[part])) > 1 and len(set(middles["query"])) > 1:
            together = f"{correlation(middles[part], middles['query']):+.2f}"
        else:
            together = "not known"
        middle = math.exp(median(middles[part]))
        lines.append(f"| {part} | {middle:.4f} | {stdev(middles[part]):.2%} | {within:.2%} | {together} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=10, help="fresh processes, 2 or more")
    parser.add_argument("--precision", choices=["fp16", "fp32"], default="fp16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        from pytest_gpuperf.errors import GpuperfError

        try:
            print(json.dumps(measure(asked.worker[0], int(asked.worker[1]))))
        except GpuperfError as error:
            raise SystemExit(str(error)) from None
        return
    if asked.processes < 2:
        parser.error(f"--processes {asked.processes}: one process differs from nothing; give 2 or more")
    print(f"{asked.precision}, batch {asked.batch}, milliseconds\n\n| {' | '.join(PARTS)} |")
    print("|---" * len(PARTS) + "|", flush=True)
    processes = []
    for _ in range(asked.processes):
        processes.append(fresh(asked.precision, asked.batch))
        print(row(processes[-1]), flush=True)
    print(f"\n{summary(processes)}")


if __name__ == "__main__":
    main()
