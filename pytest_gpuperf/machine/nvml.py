"""Check through NVML whether the device was throttled or in use by others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# nvml.h, nvmlClocksEventReasons. A software power cap (0x04) is how a GPU under load normally runs, and idle
# (0x01) or chosen clocks (0x02, 0x10, 0x100) are no fault: they are not here. The general slowdown is set
# together with the two particular ones and comes last, to be named only where neither is.
UNFIT = {
    0x40: "its hardware slowed it down for heat",
    0x80: "its power supply made it slow down (power brake)",
    0x20: "its driver slowed it down for heat",
    0x08: "its hardware slowed it down",
}
_GPU_IS_LOST = 15  # nvml.h, NVML_ERROR_GPU_IS_LOST
_FUNCTION_NOT_FOUND = 13  # nvml.h, NVML_ERROR_FUNCTION_NOT_FOUND
_REASONS = "nvmlDeviceGetCurrentClocksEventReasons"
_REASONS_BEFORE_R535 = "nvmlDeviceGetCurrentClocksThrottleReasons"
# nvml.h, nvmlDeviceGetUtilizationRates: the figure is of the last 1/6 to 1 s, as the product has it. When we
# have looked for longer than that, nothing of what we did ourselves is left in it.
_LOOKS, _BETWEEN_LOOKS = 6, 0.25
_IDLE = 5  # percent: a choice, above what a display or a monitoring agent takes


class FitnessWatch:
    """A watch on one device around a measurement.

    ``pci`` (such as "0000:1b:00.0") names the whole GPU and is preferred: a MIG instance has a UUID of its
    own, but clocks belong to the GPU. ``note`` is one line that says why nothing is watched, for the session
    to show once; "" if NVML works. Without it every measurement is taken to be fit. ``nvml`` is the module
    to ask, by default pynvml.
    """

    def __init__(self, uuid: str, pci: str | None = None, nvml: Any = None) -> None:
        self.note = ""
        self._device: Any = None
        self._found: list[str] = []
        self._nvml: Any = nvml or self._import()
        if self._nvml is not None:
            self._open(uuid, pci)

    def busy(self, sleep: Callable[[float], None] = time.sleep) -> str:
        """Say in words that others use the device, or return "". Call it while we leave the device idle.

        It goes by the utilisation, not by the list of processes: one that only holds memory disturbs nobody,
        and inside a container the list names no process outside it. Takes up to 1.25 s if the device is not
        idle. If NVML does not tell (a MIG instance has no such figure), ``note`` says so.
        """
        share = 0
        for look in range(_LOOKS):
            if look:
                sleep(_BETWEEN_LOOKS)
            share = self._utilisation()
            if share <= _IDLE:
                return ""
        return f"another process is using the GPU ({share} % busy while this session was idle)"

    def before(self) -> None:
        """Begin a measurement."""
        self._found = [self._fault()]

    def during(self) -> None:
        """Look in the middle of it, best just when the device has done what counts."""
        self._found.append(self._fault())

    def after(self) -> str:
        """End it; say why the device was not fit at one of the looks since before(), or return ""."""
        self._found.append(self._fault())
        return next(filter(None, self._found), "")

    def close(self) -> None:
        """Give NVML back; closing twice is no error."""
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

    def _fault(self) -> str:
        """Say what keeps the device from being fit now, or return ""."""
        if self._device is None:
            return ""
        try:
            reasons = self._reasons()
        except self._nvml.NVMLError as error:
            if error.value == _GPU_IS_LOST:
                return "the device was lost: NVML says it is no longer there"
            self.note = f"throttling is not watched: NVML says {error}"
            self.close()
            return ""
        return next((f"the device was throttled: {why}" for bit, why in UNFIT.items() if reasons & bit), "")

    def _utilisation(self) -> int:
        """Return in how many percent of the last moment a kernel ran; 0 if NVML does not tell."""
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
                if error.value != _FUNCTION_NOT_FOUND:
                    raise
        return int(getattr(nvml, _REASONS_BEFORE_R535)(self._device))
