"""Count the memory traffic of launches, by the names and definitions of Nsight Compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, NoReturn

from pytest_gpuperf.backends.base import Backend, Counted, Program, Traffic
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import GpuperfError, Unavailable


class NoSuchFigure(GpuperfError, AttributeError):
    """A name that counters do not have."""


class _Figures:
    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # copy and pickle ask for these
            raise AttributeError(name)
        known = [each for each in dir(self) if not each.startswith("_")]
        close = get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise NoSuchFigure(f"{type(self).__name__} of counters(...) has no {name}; {meant}")


@dataclass(frozen=True, slots=True)
class GlobalTraffic(_Figures):
    """Requests to global memory (one a warp and instruction) and the 32-byte sectors that they touch.

    Nsight Compute, for loads (stores: ``op_st``): ``l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum`` and
    ``l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum``.
    """

    requests: int
    sectors: int

    @property
    def sectors_per_request(self) -> float | None:
        """Return ``l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio``.

        32 lanes that touch 32 neighbouring 4-byte words need 4, which is their best; 32 words far apart need
        32. None without requests.
        """
        return self.sectors / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class SharedTraffic(_Figures):
    """Requests to shared memory and the wavefronts that serve them, at most one word a bank in each.

    Nsight Compute, for loads (stores: ``op_st``): ``smsp__inst_executed_op_shared_ld.sum``,
    ``l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum`` and
    ``l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum``. ``bank_conflicts`` are the
    wavefronts beyond those that the words would need if they lay in different banks.
    """

    requests: int
    wavefronts: int
    bank_conflicts: int

    @property
    def wavefronts_per_request(self) -> float | None:
        """Return 1 (free of conflicts, for 4-byte accesses) to 32, the worst; None without requests."""
        return self.wavefronts / self.requests if self.requests else None

    @property
    def bank_conflicts_per_request(self) -> float | None:
        """Return the conflicts of a request, 0 at best; None without requests."""
        return self.bank_conflicts / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Counters(_Figures):
    """The counters of one launch, or summed over ``launches``, a GPU's own or ``modelled`` by emulated warps.

    If a kernel makes no such accesses, counts are 0 and ratios None. Counts of requests depend on the
    compiler's code, so that totals of two compilers are not compared; modelled ratios are those of a GPU.
    What only a GPU knows is None where they are modelled: bytes to and from DRAM, a warp's ``instructions``,
    ``occupancy`` (active warps of those that an SM can hold, 0 to 1), and of the compiled function registers
    and spilled bytes a thread and bytes of shared memory a block. Of a callable ``kernels`` has the sums of
    each kernel by its name, ``occupancy`` is the mean over all cycles, and the functions' figures are None.
    """

    global_load: GlobalTraffic
    global_store: GlobalTraffic
    shared_load: SharedTraffic
    shared_store: SharedTraffic
    modelled: bool = True
    dram_bytes_read: float | None = None
    dram_bytes_written: float | None = None
    instructions: float | None = None
    occupancy: float | None = None
    registers: int | None = None
    spill_bytes: int | None = None
    shared_bytes: int | None = None
    launches: int = 1
    kernels: Mapping[str, Counters] = field(default_factory=dict, hash=False)

    def ratios(self) -> dict[str, float]:
        """Return the ratios worth storing, of the accesses that are made; lower is better for each."""
        found = {
            "global_load.sectors_per_request": self.global_load.sectors_per_request,
            "global_store.sectors_per_request": self.global_store.sectors_per_request,
            "shared_load.wavefronts_per_request": self.shared_load.wavefronts_per_request,
            "shared_load.bank_conflicts_per_request": self.shared_load.bank_conflicts_per_request,
            "shared_store.wavefronts_per_request": self.shared_store.wavefronts_per_request,
            "shared_store.bank_conflicts_per_request": self.shared_store.bank_conflicts_per_request,
        }
        return {name: value for name, value in found.items() if value is not None}

    def totals(self) -> dict[str, float]:
        """Return the totals worth storing, of the accesses that are made; lower is better for each."""
        found: dict[str, int] = {}
        for access, traffic in (("global_load", self.global_load), ("global_store", self.global_store)):
            found |= {f"{access}.requests": traffic.requests, f"{access}.sectors": traffic.sectors}
        for access, shared in (("shared_load", self.shared_load), ("shared_store", self.shared_store)):
            found |= {f"{access}.requests": shared.requests, f"{access}.wavefronts": shared.wavefronts}
        return {name: float(value) for name, value in found.items() if value}


def count(
    program: Program, name: str, geometry: Geometry, arguments: Sequence[Any], modelled: bool = True
) -> Counters:
    """Launch kernel ``name`` once and count its traffic; arguments are checked already.

    Raises KernelError as a launch does, and if a kernel with arrays touched none of them.
    """
    traffic = program.trace(name, geometry, arguments)
    return _counters(traffic, program.figures(name), modelled)


def count_all(device: Backend, work: Callable[[], Any], what: str) -> Counters:
    """Call ``work`` and count all kernels that it launches, summed and by their names.

    Raises Unavailable where the device cannot count them, and GpuperfError if it launches none.
    """
    counted = device.count(work)
    if not counted and device.models_traffic:
        raise Unavailable(
            f"{what} launched no kernel of the kernels fixture: counters of other kernels need a GPU"
        )
    if not counted:
        raise GpuperfError(f"counters: {what} launched no kernel, so there is nothing to count")
    named: dict[str, list[Counted]] = {}
    for each in counted:
        named.setdefault(each.name, []).append(each)
    kernels = {name: _summed(rows, device.models_traffic) for name, rows in named.items()}
    return replace(_summed(counted, device.models_traffic), kernels=kernels)


def _summed(rows: Sequence[Counted], modelled: bool) -> Counters:
    accesses = zip(*(row.traffic for row in rows), strict=True)
    traffic = [_added(access) for access in accesses]
    figures = {name: sum(row.figures[name] for row in rows) for name in rows[0].figures}
    if cycles := sum(row.cycles for row in rows):
        figures["occupancy"] = sum(row.figures["occupancy"] * row.cycles for row in rows) / cycles
    return replace(_counters(traffic, figures, modelled), launches=sum(row.launches for row in rows))


def _added(parts: Sequence[Traffic]) -> Traffic:
    requests, units, ideal = map(sum, zip(*parts, strict=True))
    return requests, units, ideal


def _counters(traffic: Sequence[Traffic], figures: Mapping[str, float], modelled: bool) -> Counters:
    load, store, shared_load, shared_store = traffic
    return Counters(
        GlobalTraffic(load[0], load[1]),
        GlobalTraffic(store[0], store[1]),
        SharedTraffic(shared_load[0], shared_load[1], shared_load[1] - shared_load[2]),
        SharedTraffic(shared_store[0], shared_store[1], shared_store[1] - shared_store[2]),
        modelled,
        **figures,  # type: ignore[arg-type]
    )
