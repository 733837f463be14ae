"""Replay a launch, or what a callable enqueues, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_gpuperf.backends.base import Backend, Graph
from pytest_gpuperf.backends.kernels import Launch
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments.callables import name_of


class Graphed:
    """A launch whose calls are replays of a graph; bound to other arrays, it is another graph."""

    def __init__(self, launch: Callable[..., Any], device: Backend) -> None:
        self._launch: Any = launch
        self._device = device
        self._name = name_of(launch)

    def of(self, call: Callable[[], Any]) -> Graph:
        """Capture a call; raises KernelError, with the callable's name, for what cannot be captured."""
        if isinstance(self._launch, Launch) and self._launch.geometry.stream is not None:
            raise KernelError(
                f"{self._name} is launched on a stream of its own; a graph is captured on gpu.stream."
            )
        try:
            return self._device.capture(call)
        except KernelError as error:
            if self._device.lost:
                raise
            said = str(error).rstrip(".")
            raise KernelError(
                f"{self._name} cannot be captured in a CUDA graph: {said}. It must not wait for the device, "
                "and enqueue all of its work on gpu.stream or on its library's current stream, not on the "
                "default one."
            ) from None

    def bind(self, *args: Any) -> Callable[[], Any]:
        return self.of(self._launch.bind(*args)).launch
