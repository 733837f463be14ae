"""Take figures of a launch beside its time, each in a pass of its own: ``gpuperf.energy`` and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.figures import text
from pytest_gpuperf.marker import isolates, test_options
from pytest_gpuperf.measurement import Bounds, Kind, Measurement, Metric
from pytest_gpuperf.questions import contract
from pytest_gpuperf.session import GpuperfSession, recorder_of
from pytest_gpuperf.unchanged import look

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu

_NO_FIGURE = math.nan
_WAYS = {
    "energy": "nvml",
    "peak_memory": "allocated",
    "first_launch": "of a loaded program",
    "compile_time": "with an empty cache",
}


@dataclass(frozen=True, slots=True)
class Pass:
    """One figure asked of a launch: ``what`` it is called, ``given`` what gpuperf takes of its arguments."""

    session: GpuperfSession
    item: pytest.Item
    what: str
    launch: Any
    args: Sequence[Any]
    keywords: Mapping[str, Any]
    given: Mapping[str, Any]

    @property
    def call(self) -> str:
        return f"gpuperf.{self.what}(...)"

    @property
    def is_kernel(self) -> bool:
        from pytest_gpuperf.instruments.callables import is_kernel

        return self.what != "compile_time" and is_kernel(self.launch)

    @property
    def way(self) -> str:
        """Return how the figure is taken, for its contract."""
        return "of a call" if self.what == "first_launch" and not self.is_kernel else _WAYS[self.what]


def energy(asked: Pass) -> float:
    """Return the joules of a launch; NaN where none were measured."""
    return _take(asked, "J", "noisy", _energy)


def peak_memory(asked: Pass, kind: Kind) -> float:
    """Return the most bytes that a call allocates at once; NaN where that was not looked at."""
    return _take(asked, "B", kind, _peak_memory)


def first_launch(asked: Pass) -> float:
    """Return the seconds of a first launch until it is done; NaN where that was not measured."""
    if callable(asked.launch) and not (asked.is_kernel or isolates(asked.item)):
        raise GpuperfError(
            f"{asked.call}: a callable is called for the first time once in a process; mark the test "
            "@pytest.mark.gpuperf(isolated=True), which gives it a process of its own"
        )
    return _take(asked, "s", "noisy", _first_launch)


def compile_time(asked: Pass) -> float:
    """Return the seconds of compiling and loading a kernel file; NaN where that was not measured."""
    from pytest_gpuperf.backends.kernels import KernelFile, Launch

    if not isinstance(asked.launch, KernelFile | Launch):
        raise GpuperfError(
            f"{asked.call} takes a file or a launch of kernels, not {type(asked.launch).__name__}; "
            "what another library compiles at its first call is part of gpuperf.first_launch"
        )
    return _take(asked, "s", "noisy", _compile_time)


# --------------------------------------------------------------------------- what they have in common

_Taken = tuple[Sequence[float], Mapping[str, Any]]


def _take(asked: Pass, unit: str, kind: Kind, instrument: Callable[[Pass, Gpu, Any], _Taken]) -> float:
    """Ask a figure, unless it need not be measured, and add it to the test's."""
    session, item, what = asked.session, asked.item, asked.what
    enqueue = _enqueue(asked)
    bounds = Bounds.of(asked.call, asked.given["min"], asked.given["max"], kind)
    label, planning = _label(asked), session.options.plan is not None
    gpu = session.gpu()
    if not session.options.active and not planning:
        return _once(asked, enqueue)
    host = what in ("first_launch", "compile_time")
    if host and kind == "noisy" and not planning and not session.judges_host_time():
        kind = "shown"
    metric = Metric(f"{label} {what}", unit, "lower", kind, what)
    asking = contract(gpu, asked.args, test_options(item), {what: asked.way}, asked.keywords)
    code = asked.launch.work_hash(*asked.args) if what == "energy" and asked.is_kernel else None
    reached = Measurement(metric, asking, (), code, bounds=bounds)
    same, why = look(session, item, reached) if code or planning else (None, {})
    if same or planning or not session.measures(item):
        _once(asked, enqueue)
        return same.value if same else _NO_FIGURE
    session.telling(item, metric.name)
    try:
        samples, details = instrument(asked, gpu, enqueue)
    except Unavailable as error:
        if what in session.options.require:
            raise
        pytest.skip(str(error))
    session.guard.sample()
    if not samples:
        return _NO_FIGURE
    if kind == "noisy" and not all(sample > 0 for sample in samples):
        raise GpuperfError(f'{asked.call}: {label} allocates nothing; kind="exact" judges that')
    taken = replace(reached, samples=tuple(map(float, samples)), details={**details, **why})
    recorder_of(item).add(taken)
    return taken.value


def _enqueue(asked: Pass) -> Any:
    """Return what is called, with its keywords bound; raises GpuperfError for what cannot be."""
    from pytest_gpuperf.instruments.callables import ran, with_keywords

    if asked.what == "compile_time":
        return None
    if not callable(asked.launch):
        given = type(asked.launch).__name__
        raise GpuperfError(f"{asked.call} takes a launch or another callable, not {given}")
    enqueue = with_keywords(asked.launch, asked.args, asked.keywords, asked.given, f"gpuperf.{asked.what}")
    return enqueue if asked.is_kernel else lambda *args: ran(enqueue, enqueue(*args))


def _label(asked: Pass) -> str:
    from pytest_gpuperf.backends.kernels import KernelFile
    from pytest_gpuperf.instruments.callables import name_of

    if asked.given["name"] is not None:
        return text(asked.call, "name", asked.given["name"])
    return asked.launch.path.name if isinstance(asked.launch, KernelFile) else name_of(asked.launch)


def _once(asked: Pass, enqueue: Any) -> float:
    """Run what would be measured, for the test's own assertions."""
    if enqueue is not None:
        enqueue(*asked.args)
    return _NO_FIGURE


# --------------------------------------------------------------------------- each of them


def _energy(asked: Pass, gpu: Gpu, enqueue: Any) -> _Taken:
    from pytest_gpuperf.instruments.contents import kept
    from pytest_gpuperf.instruments.energy import Looks, energy
    from pytest_gpuperf.machine.energy import EnergyCounter

    device, session = gpu.device, asked.session
    if not device.judges_times:
        session.results.note("energy is a GPU's: here, what it was asked of ran once")
        _once(asked, enqueue)
        return (), {}
    if device.pci is None or device.uuid.startswith("MIG-"):
        raise Unavailable("no energy: NVML counts that of whole GPUs alone, and this is not one")
    counter = EnergyCounter([device.pci])
    if counter.note:
        raise Unavailable(counter.note)
    call = enqueue.bind(*asked.args) if asked.is_kernel else lambda: enqueue(*asked.args)
    with kept(enqueue, asked.args, device) as restore:
        timer = device.timer()
        found = energy(timer, call, Looks(counter.read, timer.now))
        if restore():
            call()
            gpu.synchronize()
    session.results.note(
        f"energy is of the whole GPU, by NVML's counter, which changes every {found.step:.1g} s: the "
        "watts are a line's through its changes over 1.5 s or more"
    )
    return (found.joules,), {"watts": found.watts, "step": f"{found.step:.2g} s of {found.seconds:.3g} s"}


def _peak_memory(asked: Pass, gpu: Gpu, enqueue: Any) -> _Taken:
    from pytest_gpuperf.instruments.contents import kept
    from pytest_gpuperf.instruments.memory import peak_memory

    with kept(enqueue, asked.args, gpu.device) as restore:
        return (peak_memory(gpu.device, lambda: enqueue(*asked.args), restore),), {}


def _first_launch(asked: Pass, gpu: Gpu, enqueue: Any) -> _Taken:
    from pytest_gpuperf.instruments.contents import kept
    from pytest_gpuperf.instruments.start import first_call, first_launches

    with kept(enqueue, asked.args, gpu.device) as restore:
        if asked.is_kernel:
            samples = first_launches(enqueue, asked.args, gpu.device)
        else:
            samples = [first_call(lambda: enqueue(*asked.args), gpu.device)]
        restore()
        later = first_call(lambda: enqueue(*asked.args), gpu.device)
    return samples, {"later": later}


def _compile_time(asked: Pass, gpu: Gpu, _: Any) -> _Taken:
    from pytest_gpuperf.backends.kernels import KernelFile
    from pytest_gpuperf.instruments.start import compile_times

    launch = asked.launch
    if isinstance(launch, KernelFile):
        return compile_times(launch, None, gpu.device), {}
    return compile_times(launch.file, launch.name, gpu.device), {}
