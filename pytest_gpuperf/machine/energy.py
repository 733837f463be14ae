"""Read the energy that devices have taken, from NVML's counter, where a device has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from time import perf_counter, sleep
from typing import Any

_LOOK, _LONGEST = 0.001, 0.3  # seconds between looks at the counter, and for how long


class EnergyCounter:
    """NVML's counter of the joules that the devices at these PCI addresses have taken.

    ``note`` says why there is none, "" if it can be read.
    """

    def __init__(self, addresses: Sequence[str], nvml: Any = None) -> None:
        self.note = ""
        self._nvml = nvml
        self._devices: list[Any] = []
        try:
            if nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
            self._devices = [self._nvml.nvmlDeviceGetHandleByPciBusId(address) for address in addresses]
            self.read()
        except ImportError:
            self.note = "no energy: install nvidia-ml-py (in pytest-gpuperf[cuda])"
        except Exception as error:  # NVMLError is a class of the module that was found
            self.note = f"no energy: NVML says {error}"

    def read(self) -> float:
        """Return the joules of all devices since their driver was loaded."""
        return sum(map(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._devices)) / 1000


class EnergyMeter:
    """The energy between ``begin`` and ``end`` of the devices at these PCI addresses.

    ``joules`` is None where it is not known, and ``note`` says why; ``step`` are the seconds between two
    changes of the counter, so that a span is known to that. They are looked for as the meter is made, on a
    thread, for up to 0.3 s: what is then done before the span takes longer.
    """

    def __init__(self, addresses: Sequence[str], nvml: Any = None) -> None:
        self.step, self._first = _LONGEST, 0.0
        self.joules: float | None = None
        self._counter = EnergyCounter(addresses, nvml)
        self.note = self._counter.note
        self._looking = Thread(target=self._unless_lost, args=(self._look,), daemon=True)
        self._looking.start()

    def begin(self) -> None:
        self._unless_lost(self._begin)

    def end(self) -> None:
        self._unless_lost(self._end)
        self._looking.join()

    def _unless_lost(self, read: Callable[[], None]) -> None:
        """Read the counter, if it can be: where it cannot any more there is no energy, and no failure."""
        if not self.note:
            try:
                read()
            except Exception as error:
                self.joules, self.note = None, f"no energy: NVML says {error}"

    def _begin(self) -> None:
        self._first = self._counter.read()

    def _end(self) -> None:
        self.joules = self._counter.read() - self._first

    def _look(self) -> None:
        """Find out how often the counter changes."""
        before, changes = self._counter.read(), list[float]()
        limit = perf_counter() + _LONGEST
        while len(changes) < 2 and perf_counter() < limit:
            sleep(_LOOK)
            now = self._counter.read()
            if now != before:
                changes.append(perf_counter())
                before = now
        if len(changes) == 2:
            self.step = changes[1] - changes[0]
