"""Was the device fit to measure: what NVML says held its clocks back, and whether somebody else uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# nvml.h, nvmlClocksEventReasons. A software power cap (0x04) is how a GPU under load normally runs, and idle
# (0x01) or chosen clocks (0x02, 0x10, 0x100) are no fault: they are not here. The general slowdown is set
# together with the two particular ones and comes last, to be named only where neither is.
_UNFIT = {
    0x40: "its hardware slowed it down for heat",
    0x80: "its power supply made it slow down (power brake)",
    0x20: "its driver slowed it down for heat",
    0x08: "its hardware slowed it down",
}
_GPU_IS_LOST = 15  # nvml.h, NVML_ERROR_GPU_IS_LOST
_FUNCTION_NOT_FOUND = 13  # nvml.h, NVML_ERROR_FUNCTION_NOT_FOUND
_REASONS = "nvmlDeviceGetCurrentClocksEventReasons"
_REASONS_BEFORE_R535 = "nvmlDeviceGetCurrentClocksThrottleReasons"
# nvml.h, nvmlClockType_t and nvmlTemperatureSensors_t
_CLOCK_SM, _CLOCK_MEM, _TEMPERATURE_GPU = 1, 2, 0
# nvml.h, nvmlDeviceGetUtilizationRates: the figure is of the last 1/6 to 1 s, as the product has it. When we
# have looked for longer than that, nothing of what we did ourselves is left in it.
_LOOKS, _BETWEEN_LOOKS = 6, 0.25
_IDLE = 5  # percent: a choice, above what a display or a monitoring agent takes


@dataclass(frozen=True, slots=True)
class Fitness:
    """Whether a measurement's device was fit, with ``reason`` where it was not (else "").

    ``sm_clock`` and ``memory_clock`` in MHz and ``temperature`` in degrees Celsius are those after the
    measurement; None where NVML does not tell.
    """

    fit: bool
    reason: str = ""
    sm_clock: int | None = None
    memory_clock: int | None = None
    temperature: int | None = None


class FitnessWatch:
    """Looks at one device around a measurement.

    ``pci`` (such as "0000:1b:00.0") names the whole GPU and is preferred: a MIG instance has a UUID of its
    own, but clocks belong to the GPU. ``note`` is one line that says why nothing is watched, for the session
    to show once; "" where NVML works. Without it every measurement is taken to be fit. ``nvml`` is the
    module to ask, by default pynvml.
    """

    def __init__(self, uuid: str, pci: str | None = None, nvml: Any = None) -> None:
        self.note = ""
        self._device: Any = None
        self._looks: list[Fitness] = []
        self._nvml: Any = nvml or self._import()
        if self._nvml is not None:
            self._open(uuid, pci)

    def busy(self, sleep: Callable[[float], None] = time.sleep) -> str:
        """Who else uses the device, in words; "" where nobody does. To be asked while we leave it idle.

        By its utilisation, not by the list of processes: one that only holds memory disturbs nobody, and
        inside a container the list names no process outside it. At once where the device is idle, else after
        up to 1.25 s. Where NVML does not tell (a MIG instance has no such figure), ``note`` says so.
        """
        share = 0
        for look in range(_LOOKS):
            if look:
                sleep(_BETWEEN_LOOKS)
            share = self._utilisation()
            if share <= _IDLE:
                return ""
        return f"the device is in others' use: {share} % busy while this session left it idle"

    def before(self) -> None:
        """Begins a measurement."""
        self._looks = [self._look()]

    def during(self) -> None:
        """Looks in the middle of it, best just when the device has done what counts."""
        self._looks.append(self._look())

    def after(self) -> Fitness:
        """The measurement since before(): unfit where the device was so at any look."""
        self._looks.append(self._look())
        return next((look for look in self._looks if not look.fit), self._looks[-1])

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
        self._nvml = self._device = None

    def _import(self) -> Any:
        try:
            import pynvml
        except ImportError:
            self.note = "throttling is not watched: install nvidia-ml-py (in pytest-gpuperf[cuda])"
            return None
        return pynvml

    def _open(self, uuid: str, pci: str | None) -> None:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.note = f"throttling is not watched: NVML says {error}"
            self._nvml = None
            return
        try:
            if pci:
                self._device = nvml.nvmlDeviceGetHandleByPciBusId(pci)
            else:
                # PyCUDA prints UUIDs bare; NVML wants their kind in front.
                kind = "" if uuid.startswith(("GPU-", "MIG-")) else "GPU-"
                self._device = nvml.nvmlDeviceGetHandleByUUID(kind + uuid)
        except nvml.NVMLError as error:
            self.note = f"throttling is not watched: NVML says {error} of device {pci or uuid}"
            self.close()

    def _look(self) -> Fitness:
        if self._device is None:
            return Fitness(fit=True)
        try:
            reasons = self._reasons()
        except self._nvml.NVMLError as error:
            if _code(error) == _GPU_IS_LOST:
                return Fitness(fit=False, reason="the device was lost: NVML says it is no longer there")
            self.note = f"throttling is not watched: NVML says {error}"
            self.close()
            return Fitness(fit=True)
        reason = next((why for bit, why in _UNFIT.items() if reasons & bit), "")
        return Fitness(
            fit=not reason,
            reason=reason and f"the device was throttled: {reason}",
            sm_clock=self._ask("nvmlDeviceGetClockInfo", _CLOCK_SM),
            memory_clock=self._ask("nvmlDeviceGetClockInfo", _CLOCK_MEM),
            temperature=self._ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        )

    def _utilisation(self) -> int:
        """Percent of the last moment in which a kernel ran; 0 where NVML does not tell."""
        if self._device is None:
            return 0
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu)
        except self._nvml.NVMLError as error:
            self.note = f"whether others use the device is not watched: NVML says {error}"
            return 0

    def _reasons(self) -> int:
        nvml = self._nvml
        if hasattr(nvml, _REASONS):
            try:
                return int(getattr(nvml, _REASONS)(self._device))
            except nvml.NVMLError as error:
                if _code(error) != _FUNCTION_NOT_FOUND:
                    raise
        return int(getattr(nvml, _REASONS_BEFORE_R535)(self._device))

    def _ask(self, function: str, which: int) -> int | None:
        try:
            return int(getattr(self._nvml, function)(self._device, which))
        except self._nvml.NVMLError:
            return None


def _code(error: Exception) -> int | None:
    return getattr(error, "value", None)
