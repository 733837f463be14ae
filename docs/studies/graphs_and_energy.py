"""Graphs beside launches, what happens once, and energy: of the shipped kernels and of ResNet-50.

    python docs/studies/graphs_and_energy.py results/        # about a minute on an H100

Writes graphs_and_energy.md, which it prints too, and graphs_and_energy.json into the folder. Launch and graph
are measured in turn, twice each. A part that fails says so, and the others go on; none begins later than
``--budget`` seconds. Without a GPU there is nothing to show: it then runs on small arrays, to try the script.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ladder import MATMULS, SUMS, TRANSPOSES, Ladder

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.instruments import device_time, start
from pytest_gpuperf.instruments.device_time import Settings
from pytest_gpuperf.instruments.energy import Energy, Looks, energy
from pytest_gpuperf.machine.energy import EnergyCounter

BEGUN = perf_counter()
SETTINGS = Settings(seconds=0.2, warmup=0.1)
ROUNDS = 2
CHAIN = 32  # small transposes that follow each other
SCENARIOS = ("SingleStream", 1, "query"), ("Offline", 256, "image")

Part = Iterator[str]
RESULTS: dict[str, Any] = {}


class Bench(Ladder):
    """The ladder's kernels, at the sizes of the suites or small."""

    def __init__(self) -> None:
        super().__init__()
        self.real = self.gpu.device.judges_times
        self.side, self.small = (8192, 256) if self.real else (64, 32)

    def rungs(self) -> Mapping[str, tuple[Any, tuple[Any, ...]]]:
        return {
            **{f"{name}, {self.side}²": self.transpose(name, self.side) for name in TRANSPOSES},
            **{f"{name}, {self.side}²": self.sum(name, self.side) for name in SUMS},
            **{f"{name}, {self.side // 4}²": self.matmul(name, self.side // 4) for name in MATMULS},
            f"transpose_tiled, {self.small}²": self.transpose("transpose_tiled", self.small),
            f"sum_vectorized, {self.small}²": self.sum("sum_vectorized", self.small),
        }

    def callables(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        launch, args = self.transpose("transpose_tiled", self.small)
        back = launch.bind(args[1], args[0], *args[2:]), launch.bind(*args)
        yield f"{CHAIN} x transpose_tiled, {self.small}²", lambda: [back[i % 2]() for i in range(CHAIN)]
        first, (values, partials, n) = self.sum("sum_vectorized", self.small)
        total, blocks = self.gpu.empty(1), first.geometry.grid[0]
        calls = (
            first.bind(values, partials, n),
            first.file["sum_vectorized"][1, 256].bind(partials, total, blocks),
        )
        yield f"sum of {self.small}² in two launches", lambda: [call() for call in calls]
        if self.real and (made := _torch()) is not None:
            yield "torch: softmax(relu(a @ b)), 512²", made


def _torch() -> Callable[[], Any] | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    a, b = torch.rand((512, 512), device="cuda"), torch.rand((512, 512), device="cuda")
    return lambda: torch.softmax(torch.relu(a @ b), dim=1)


def graphs(bench: Bench) -> Part:
    yield "| | launch, µs | graph, µs | graph / launch | host's µs to enqueue: launch | graph |"
    yield "|---" * 6 + "|"
    rows: list[tuple[str, Any, tuple[Any, ...]]] = [(name, *rung) for name, rung in bench.rungs().items()]
    for name, call, args in rows + [(name, call, ()) for name, call in bench.callables()]:
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for graph, taken in seconds.items():
                found = device_time.measure(bench.gpu, call, args, SETTINGS, graph=graph)
                taken.append(found.median)
        launch, replay = (median(taken) for taken in seconds.values())
        direct = call.bind(*args) if args else call
        host = [_host(bench, each) for each in (direct, bench.gpu.device.capture(direct).launch)]
        RESULTS.setdefault("graphs", {})[name] = {
            "launch": seconds[False],
            "graph": seconds[True],
            "host": host,
        }
        cells = f"{launch * 1e6:,.2f} | {replay * 1e6:,.2f} | {replay / launch:.4f}"
        yield f"| {name} | {cells} | {host[0] * 1e6:.2f} | {host[1] * 1e6:.2f} |"


def _host(bench: Bench, call: Callable[[], Any]) -> float:
    """Return the host's seconds to enqueue a call: the median of rounds that the driver's queue can hold."""
    taken = []
    for _ in range(5):
        bench.gpu.synchronize()
        begin = perf_counter()
        for _ in range(20):
            call()
        taken.append((perf_counter() - begin) / 20)
    bench.gpu.synchronize()
    return median(taken)


def energies(bench: Bench) -> Part:
    counter = EnergyCounter([bench.gpu.device.pci] if bench.gpu.device.pci else [])
    if counter.note or not bench.real:
        raise Unavailable(counter.note or "energy is a GPU's")
    side, timer = bench.side, bench.gpu.device.timer()
    yield f"| {side}² | mJ a launch | the other rounds | W | µs | pJ a byte | counter's step |"
    yield "|---" * 7 + "|"
    copied = bench.gpu.empty((side, side)), bench.gpu.random((side, side))
    rows: dict[str, Callable[[], Any]] = {"copy": lambda: bench.gpu.device.copy(*copied)}
    for name in TRANSPOSES:
        launch, args = bench.transpose(name, side)
        rows[name] = launch.bind(*args)
    taken: dict[str, list[Energy]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, call in rows.items():
            taken[name].append(energy(timer, call, Looks(counter.read, timer.now)))
    for name, found in taken.items():
        RESULTS.setdefault("energy", {})[name] = [
            {"joules": e.joules, "watts": e.watts, "seconds": e.seconds, "step": e.step} for e in found
        ]
        first = found[0]
        others = ", ".join(f"{each.joules / first.joules - 1:+.2%}" for each in found[1:])
        seconds = first.joules / first.watts
        cells = f"{first.joules * 1e3:.3f} | {others} | {first.watts:.0f} | {seconds * 1e6:.1f}"
        yield (
            f"| `{name}` | {cells} | {first.joules / (8 * side * side) * 1e12:.1f} | "
            f"{first.step * 1e3:.1f} ms of {first.seconds:.2f} s |"
        )


def resnet(bench: Bench) -> Part:
    from pytest_gpuperf.mlperf import loadgen, models
    from pytest_gpuperf.mlperf.session import open_session

    if not bench.real:
        raise Unavailable("the energy of ResNet-50 is a GPU's")
    yield "| ResNet-50 | J | of | images/s | counter's step |"
    yield "|---" * 5 + "|"
    model = models.resolve()
    for precision in ("fp32", "fp16"):
        session = open_session(model, "cuda", precision, (1, 256))
        for scenario, _, what in SCENARIOS:
            logs = Path(tempfile.mkdtemp())
            result = loadgen.performance(session, scenario, log_dir=logs, seconds=2.0, warm_up=1.0)
            if result.energy is None:
                yield f"| {precision} {scenario} | {'; '.join(result.notes) or 'not known'} | | | |"
                continue
            joules, step = result.energy
            count = result.samples if what == "image" else result.queries
            RESULTS.setdefault("resnet50", {})[f"{precision} {scenario}"] = {
                "joules": joules / count,
                "per": what,
                "step": step,
                "seconds": result.duration,
            }
            span = f"{step * 1e3:.0f} ms of {result.duration:.2f} s"
            cells = f"{joules / count:.4g} | {what} | {count / result.duration:,.0f} | {span}"
            yield f"| {precision} {scenario} | {cells} |"
        del session


def once(bench: Bench) -> Part:
    yield "| | first launch, µs | the launch after it, µs | compiled and loaded, s |"
    yield "|---" * 4 + "|"
    for name in ("transpose_tiled", "transpose_quads"):
        launch, args = bench.transpose(name, bench.side)
        first = start.first_launches(launch, args, bench.gpu.device)
        later = start.first_call(partial(launch, *args), bench.gpu.device)
        made = start.compile_times(launch.file, name, bench.gpu.device)
        RESULTS.setdefault("once", {})[name] = {"first": first, "later": later, "compiled": made}
        yield f"| `{name}` | {median(first) * 1e6:,.0f} | {later * 1e6:,.0f} | {median(made):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of graphs_and_energy.md and .json")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds after which no part begins")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    bench = Bench()
    device = bench.gpu.device
    RESULTS["device"] = (
        f"{device.device_name}, {device.uuid}, {device.compiler_version}, {dict(device.software())}"
    )
    text = [RESULTS["device"], ""]
    print(*text, sep="\n")
    for part in (graphs, energies, resnet, once):
        lines, begun = list[str](), perf_counter()
        try:
            if begun - BEGUN > asked.budget:
                raise Unavailable("left out for time")
            for line in part(bench):
                lines.append(line)
                print(line, flush=True)
        except GpuperfError as error:
            lines.append(f"{part.__name__}: {error}")
            print(lines[-1])
        except Exception:
            lines += [f"{part.__name__} failed:", *traceback.format_exc().splitlines()[-6:]]
            print(*lines[-7:], sep="\n")
        print(f"\n({part.__name__}: {perf_counter() - begun:.1f} s)\n", flush=True)
        text += [*lines, ""]
        (asked.out / "graphs_and_energy.md").write_text("\n".join(text))
        (asked.out / "graphs_and_energy.json").write_text(json.dumps(RESULTS, default=float, indent=1))
    bench.gpu.close()


if __name__ == "__main__":
    main()
