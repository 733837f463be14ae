"""LoadGen beside bare loops, other runtimes and the reference's way, on one GPU or several, in one run.

    python docs/studies/mlperf_speed.py --out results/        # about four minutes on an H100

ResNet-50 (``resnet50-digits``); every query has the copy of its images to the device in it. What is beside
what is measured in turn, in this process, since hosts and GPUs drift. A part that fails says so, and the
others go on; results are written as they come. Parts, and each configuration of the long ones, begin only if
by what they took before they end within ``--budget`` seconds. Needs onnxruntime-gpu and LoadGen; with PyTorch
that is measured, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from mlperf_loops import (
    HELD,
    Watched,
    apart,
    back_alone,
    bare,
    copy_alone,
    held,
    on_thread,
    session_run,
    timed,
    together,
    torch_graphs,
    walking,
)

from pytest_gpuperf.mlperf import loadgen, models, peak
from pytest_gpuperf.mlperf.session import Team, open_session
from pytest_gpuperf.mlperf.settings import Scenario

ROUNDS, LATENCY = 3, 0.015
RESULTS: dict[str, Any] = {}
BEGUN, BUDGET = perf_counter(), [270.0]


def streams(model: Any) -> list[str]:
    """SingleStream and MultiStream beside the bare loop, in turn."""
    lines = [
        "| | LoadGen p50, ms | of it the model's run | bare loop, new thread | random order | main thread "
        "| waits apart | LoadGen beside the bare loop, each round |",
        "|---" * 8 + "|",
    ]
    for precision in ("fp16", "fp32"):
        session = open_session(model, "cuda", precision, (1, 8))
        for scenario, batch in (("SingleStream", 1), ("MultiStream", 8)):
            rows, shuffled = [], np.random.default_rng(1).permutation(HELD // batch).tolist()
            for turn in range(ROUNDS):
                seen = Watched(session)
                result = loadgen.performance(
                    seen, scenario, log_dir=logs(), seconds=1.5, warm_up=1.0 if turn == 0 else 0.3
                )
                images, release = held(session)
                worker = session.workers[0]
                rows.append(
                    (
                        float(result.latency.p50),
                        median(seen.times[len(seen.times) // 2 :]),
                        on_thread(partial(bare, worker, batch, 1.0)),
                        on_thread(partial(bare, worker, batch, 0.5, shuffled)),
                        bare(worker, batch, 0.5),
                        apart(session, worker, images, batch, 0.5),
                    )
                )
                release()
            middle = [median(column) for column in zip(*rows, strict=True)]
            beside = [row[0] / row[2] - 1 for row in rows]
            name = f"{precision} {scenario}"
            RESULTS[name] = {"rows": rows, "beside": beside, "qps": result.qps}
            shown = " | ".join(f"{1e3 * each:.4f}" for each in middle)
            lines.append(f"| {name} | {shown} | {' '.join(f'{each:+.2%}' for each in beside)} |")
    return lines


def reference(model: Any) -> list[str]:
    """The reference's way."""
    one, many = RESULTS["reference"] = session_run(model)
    return [f"`session.run`, fp32, NCHW: {1e3 * one:.3f} ms an image, {32 / many:,.0f} images/s in 32"]


def offline_bare(model: Any) -> Iterator[str]:
    """Bare loops of fp16 in every configuration, copies included; opening a session takes 2 to 5 s."""
    yield "| bare loop, fp16 | images/s |"
    yield "|---|---|"
    for batch in (256, 128, 64):
        for count, qsl in ((1, "host"), (2, "host"), (2, "device")):
            if (qsl == "device" and batch < 256) or late(15.0):
                continue
            session = open_session(model, "cuda", "fp16", (batch,), team=Team(count, 1, qsl))
            _, release = held(session)
            calls = [walking(worker, batch, place) for place, worker in enumerate(session.workers)]
            rate = batch * together(calls, 1.2)
            release()
            RESULTS.setdefault("offline bare", {})[f"{count} x {batch}, {qsl}"] = rate
            yield f"| {count} sessions, batches of {batch}, images on the {qsl} | {rate:,.0f} |"
            del session, calls


def offline(model: Any) -> list[str]:
    """LoadGen's Offline."""
    lines = ["| Offline, fp16, batch 256 | images/s |", "|---|---|"]
    for count, qsl in ((1, "host"), (2, "host"), (3, "host"), (2, "device")):
        session = open_session(model, "cuda", "fp16", (256,), team=Team(count, 1, qsl))
        rates = []
        for turn in range(2):
            found = loadgen.performance(
                session, "Offline", log_dir=logs(), seconds=2.0, warm_up=1.0 if turn == 0 else 0.5
            )
            rates.append(found.samples_per_second)
        RESULTS[f"offline {count} {qsl}"] = rates
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        lines.append(f"| {count} streams, images on the {qsl} | {shown} |")
        del session
    return lines


def torch_bare(model: Any) -> list[str]:
    """PyTorch's bare loops."""
    found = RESULTS["torch"] = torch_graphs(model)
    rates = ", ".join(f"{rate:,.0f} ({name})" for name, rate in found.items() if " x " in name)
    return [
        f"torch {found['version']}, fp16, channels last, CUDA graph: {1e3 * found['1']:.4f} ms an image; "
        f"images/s {rates}; {found['right of 256']} of 256 right"
    ]


def server(model: Any) -> Iterator[str]:
    """The highest valid rate at a p99 of 15 ms; opening the sessions of one stream takes some 20 s."""
    yield "| Server, fp16, p99 within 15 ms | queries/s | p99, ms | phases | opening, s | search, s |"
    yield "|---|---|---|---|---|---|"
    for count, batch, expected in ((1, 64, 60.0), (2, 64, 80.0), (2, 32, 75.0)):
        if late(expected):
            yield f"| {count} streams, batches of {batch}: left out for time |"
            continue
        begun = perf_counter()
        sizes = sorted({batch, *(1 << power for power in range(2, 6) if 1 << power < batch)})
        session = open_session(model, "cuda", "fp16", sizes, team=Team(count))
        opened = perf_counter()
        asked = replace(Scenario.of("Server"), max_latency=LATENCY)
        found = peak.find_peak(session, asked, seconds=1.5, resolution=0.02, log_dir=logs(), keep_trace=False)
        RESULTS[f"server {count} x {batch}"] = [found.qps, found.best.latency.p99, found.phases]
        yield (
            f"| {count} streams, batches of {batch} | {found.qps:,.0f} | {1e3 * found.best.latency.p99:.2f} "
            f"| {len(found.phases)} | {opened - begun:.1f} | {perf_counter() - opened:.1f} |"
        )
        del session


def profile(model: Any) -> list[str]:
    """What a batch consists of: each part alone, with a wait after it."""
    lines = [
        "| fp16 batch | whole, ms | copy | graph, in a row | its launch | copy back and class | link, GB/s |",
        "|---" * 7 + "|",
    ]
    for batch in (1, 8, 64, 256):
        session = open_session(model, "cuda", "fp16", (batch,))
        images, release = held(session)
        worker = session.workers[0]
        lane, copies = worker._lanes[batch], worker._copies
        whole = bare(worker, batch, 0.6)

        copy = partial(copy_alone, lane, copies, images.ctypes.data, batch)
        back = partial(back_alone, lane, copies, batch)
        copied, fetched = median(timed(copy, 0.4)), median(timed(back, 0.4))
        launches, graphs = [], []
        for _ in range(5):
            begin = perf_counter()
            for _ in range(20):
                lane.enqueue()
            launches.append((perf_counter() - begin) / 20)
            copies._synchronise(lane._stream)
            graphs.append((perf_counter() - begin) / 20)
        speed = batch * lane._image / copied / 1e9
        parts = [whole, copied, median(graphs), median(launches), fetched]
        RESULTS[f"profile {batch}"] = [*parts, speed]
        lines.append(f"| {batch} | {' | '.join(f'{1e3 * each:.4f}' for each in parts)} | {speed:.1f} |")
        release()
        del session, worker, lane
    return lines


def several(model: Any) -> Iterator[str]:
    """Offline on every number of GPUs, and Server's peak on two."""
    import onnxruntime

    from pytest_gpuperf.mlperf import cuda_runtime
    from pytest_gpuperf.mlperf.cuda_copies import Copies

    there, first = Copies(cuda_runtime.cuda_major(onnxruntime)).devices(), 0.0
    if there < 2:
        yield "one GPU"
        return
    yield "| GPUs, one stream each | Offline, images/s | times one | at |"
    yield "|---|---|---|---|"
    for count in sorted({1, 2, there}):
        if late(12.0 * count):
            yield f"| {count}: left out for time |"
            continue
        session = open_session(model, "cuda", "fp16", (256,), team=Team(1, count))
        rates = [
            loadgen.performance(
                session, "Offline", log_dir=logs(), seconds=2, warm_up=1.0 if turn == 0 else 0.5
            ).samples_per_second
            for turn in range(2)
        ]
        first = first or max(rates)
        RESULTS[f"gpus {count}"] = rates
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        yield f"| {count} | {shown} | {max(rates) / first:.2f} | {' '.join(session.addresses())} |"
        del session
    if late(70.0):
        return
    session = open_session(model, "cuda", "fp16", (8, 32, 64), team=Team(1, 2))
    asked = replace(Scenario.of("Server"), max_latency=LATENCY)
    found = peak.find_peak(session, asked, seconds=1.5, resolution=0.02, log_dir=logs(), keep_trace=False)
    RESULTS["server on two GPUs"] = [found.qps, found.best.latency.p99, found.phases]
    yield f"Server on two GPUs, batches of 64 at most: {found.qps:,.0f} queries/s, {len(found.phases)} phases"


def floor(model: Any) -> list[str]:
    """LoadGen's and the callbacks' own time: a model that does nothing."""
    answers = np.zeros(1, np.int64)

    class Null:
        precision, batch_sizes, dtype, description = "fp32", (1,), np.float32, {"provider": "none"}
        model = models.Model("null", Path("null.onnx"), "", models.Digits)

        def run(self, batch: np.ndarray) -> np.ndarray:
            return answers

        def hold(self, images: np.ndarray) -> Callable[[], None]:
            return lambda: None

    found = loadgen.performance(Null(), "SingleStream", log_dir=logs(), seconds=0.5, loaded=16)
    RESULTS["floor"] = float(found.latency.p50)
    return [f"SingleStream of a model that does nothing: p50 {1e6 * found.latency.p50:.2f} us"]


def machine(model: Any) -> list[str]:
    import onnxruntime

    RESULTS["cores"] = sorted(os.sched_getaffinity(0))
    nodes = sorted(str(path) for path in Path("/sys/devices/system/node").glob("node[0-9]*"))
    said = f"onnxruntime {onnxruntime.__version__}, {len(RESULTS['cores'])} cores, {len(nodes)} nodes"
    said += f", load {os.getloadavg()[0]}"
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pci = pynvml.nvmlDeviceGetPciInfo(handle).busId
        said += f", {pynvml.nvmlDeviceGetName(handle)} at {pci}"
        place = Path("/sys/bus/pci/devices") / str(pci).lower()[4:] / "local_cpulist"
        said += f", beside cores {place.read_text().strip()}"
    return [said]


def logs() -> Path:
    return Path(tempfile.mkdtemp(prefix="loadgen-"))


def late(expected: float) -> bool:
    """Whether what takes so many seconds would end after the budget."""
    return perf_counter() - BEGUN + expected > BUDGET[0]


def run(part: Callable[[Any], Iterable[str]], model: Any, text: list[str], out: Path) -> None:
    """Run one part, and write what it says as it comes."""
    begun = perf_counter()
    try:
        for line in [f"{part.__name__}: left out for time"] if late(5.0) else part(model):
            text.append(line)
            print(line, flush=True)
            write(text, out)
    except Exception:
        text += ["", f"{part.__name__} failed:", *traceback.format_exc().splitlines()[-6:]]
        print("\n".join(text[-7:]), flush=True)
    text.append("")
    print(f"\n({part.__name__}: {perf_counter() - begun:.1f} s)\n", flush=True)
    write(text, out)


def write(text: list[str], out: Path) -> None:
    (out / "mlperf_speed.md").write_text("\n".join(text))
    (out / "mlperf_speed.json").write_text(json.dumps(RESULTS, default=float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of mlperf_speed.md and .json")
    parser.add_argument("--budget", type=float, default=270.0, help="seconds after which nothing begins")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[part.__name__ for part in PARTS], help="parts"
    )
    asked = parser.parse_args()
    BUDGET[0] = asked.budget
    asked.out.mkdir(parents=True, exist_ok=True)
    model, text = models.resolve(), list[str]()
    for part in PARTS:
        if not asked.only or part.__name__ in asked.only:
            run(part, model, text, asked.out)


# What takes little time comes first.
PARTS: tuple[Callable[[Any], Iterable[str]], ...] = (
    *(machine, floor, reference, torch_bare, several, offline_bare, server, offline, profile, streams),
)

if __name__ == "__main__":
    main()
