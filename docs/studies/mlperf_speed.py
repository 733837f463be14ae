"""LoadGen beside bare loops, other runtimes and the reference's way, on one GPU or several, in one run.

    python docs/studies/mlperf_speed.py --out results/        # about four minutes on an H100

ResNet-50 (``resnet50-digits``); every query has the copy of its images to the device in it. What is beside
what is measured in turn, in this process, since hosts and GPUs drift. A part that fails says so, and the
others go on; parts begin only within ``--budget`` seconds. Needs onnxruntime-gpu and LoadGen; with PyTorch
that is measured, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable
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
BEGUN = perf_counter()


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


def offline_bare(model: Any) -> list[str]:
    """Bare loops of fp16 in every configuration, copies included."""
    lines, best = ["| batch | 1 session | 2 sessions | 2, images on the device |", "|---|---|---|---|"], {}
    for batch in (64, 128, 256):
        cells = []
        for count, qsl in ((1, "host"), (2, "host"), (2, "device")):
            if qsl == "device" and batch < 256:
                cells.append("")
                continue
            session = open_session(model, "cuda", "fp16", (batch,), team=Team(count, 1, qsl))
            _, release = held(session)
            calls = [walking(worker, batch, place) for place, worker in enumerate(session.workers)]
            rate = batch * together(calls, 1.2)
            release()
            best[f"{count} x {batch}, {qsl}"] = rate
            cells.append(f"{rate:,.0f}")
            del session, calls
        lines.append(f"| {batch} | {' | '.join(cells)} |")
    RESULTS["offline bare"] = best
    return lines


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


def server(model: Any) -> list[str]:
    """The highest valid rate at a p99 of 15 ms."""
    lines = ["| Server, fp16, p99 within 15 ms | queries/s | p99, ms | phases |", "|---|---|---|---|"]
    for count, batch in ((1, 64), (2, 64), (2, 32)):
        sizes = sorted({batch, *(1 << power for power in range(2, 6) if 1 << power < batch)})
        session = open_session(model, "cuda", "fp16", sizes, team=Team(count))
        asked = replace(Scenario.of("Server"), max_latency=LATENCY)
        found = peak.find_peak(session, asked, seconds=1.5, resolution=0.04, log_dir=logs(), keep_trace=False)
        RESULTS[f"server {count} x {batch}"] = [found.qps, found.best.latency.p99, found.phases]
        lines.append(
            f"| {count} streams, batches of {batch} | {found.qps:,.0f} | {1e3 * found.best.latency.p99:.2f} "
            f"| {len(found.phases)} |"
        )
        del session
    return lines


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


def several(model: Any) -> list[str]:
    """Offline on every number of GPUs."""
    import onnxruntime

    from pytest_gpuperf.mlperf import cuda_runtime
    from pytest_gpuperf.mlperf.cuda_copies import Copies

    there = Copies(cuda_runtime.cuda_major(onnxruntime)).devices()
    if there < 2:
        return ["one GPU"]
    lines, first = ["| GPUs | images/s | times one |", "|---|---|---|"], 0.0
    for count in sorted({1, 2, there}):
        session = open_session(model, "cuda", "fp16", (256,), team=Team(2, count))
        rate = loadgen.performance(
            session, "Offline", log_dir=logs(), seconds=3, warm_up=1.0
        ).samples_per_second
        first = first or rate
        RESULTS[f"gpus {count}"] = rate
        lines.append(f"| {count} | {rate:,.0f} | {rate / first:.2f} |")
        del session
    return lines


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


def machine() -> list[str]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of mlperf_speed.md and .json")
    parser.add_argument("--budget", type=float, default=270.0, help="seconds after which no part begins")
    parser.add_argument("--only", nargs="*", default=[], help="names of parts")
    asked = parser.parse_args()
    model, text = models.resolve(), []
    parts = (machine, floor, streams, profile, offline, offline_bare, torch_bare, reference, server, several)
    for part in parts:
        if asked.only and part.__name__ not in asked.only:
            continue
        begun = perf_counter()
        try:
            late = begun - BEGUN > asked.budget
            lines = (
                [f"{part.__name__}: left out for time"]
                if late
                else part(model)
                if part is not machine
                else part()
            )
        except Exception:
            lines = [f"{part.__name__} failed:", *traceback.format_exc().splitlines()[-6:]]
        text += [*lines, ""]
        print("\n".join(lines), f"\n({part.__name__}: {perf_counter() - begun:.1f} s)\n", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "mlperf_speed.md").write_text("\n".join(text))
        (asked.out / "mlperf_speed.json").write_text(json.dumps(RESULTS, default=float))


if __name__ == "__main__":
    main()
