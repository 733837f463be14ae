"""A batch size of any model on a CUDA device: a session, one CUDA graph, and buffers at fixed addresses.

It takes several inputs, constants, state and sizes that the file leaves open; what is plain is faster in
``cuda_lane``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_gpuperf.mlperf.cuda_lane import GraphLane, next_size
from pytest_gpuperf.mlperf.datasets import dataset_of
from pytest_gpuperf.mlperf.interface import Interface, failure
from pytest_gpuperf.mlperf.library import SampleLibrary


class GeneralLane(GraphLane):
    """One batch size on the device: its ONNX Runtime session, CUDA graph and buffers."""

    def __init__(self, owner: Any, session: Any, io: Interface, size: int) -> None:
        super().__init__(owner.ort, session, owner.model, size)
        self.io = io
        sample = self._sample()
        shapes = self.io.sample_shapes(sample)
        self._staging = {n: np.zeros((self._size, *shapes[n]), dtype) for n, dtype in self.io.fed.items()}
        self._first = self.io.first_state()
        found = self._tried(owner, sample) if self.io.is_open else {}
        try:
            self._bind(owner.ort, found)
        except Exception as error:
            raise failure(self._model, f"allocating the buffers for batch {size}", error) from error

    def _bind(self, ort: Any, found: Mapping[str, np.ndarray]) -> None:
        """Give every input and output a buffer of its own, at an address that a CUDA graph can keep."""

        def filled(array: np.ndarray) -> Any:
            return ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)

        given = {**self._staging, **self.io.constants, **self._first}
        self._inputs = {name: filled(array) for name, array in given.items()}
        self._outputs = {}
        for name in (*self.io.outputs, *self.io.state.values()):
            shape, dtype = self.io.output_shape(name, self._size, found), self.io.output_dtype(name)
            if name in self.io.state.values():
                shape = list(next(self._first[i].shape for i, o in self.io.state.items() if o == name))
            self._outputs[name] = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _sample(self) -> dict[str, np.ndarray]:
        """Return one sample as the dataset has it, for the sizes that the file leaves open."""
        if not self.io.is_open:
            return {}
        library = SampleLibrary(dataset_of(self._model, 1), self.io.dtype, lambda images: lambda: None)
        library.load([0])
        return self.io.arrays(library.slice(0, 1))

    def _tried(self, owner: Any, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the sample on the CPU, once: a CUDA graph needs its outputs' sizes before its first run."""
        names = list(self.io.outputs)
        options = owner.ort.SessionOptions()
        session = owner.ort.InferenceSession(
            str(owner.path), options, providers=[("CPUExecutionProvider", {})]
        )
        outputs = session.run(names, {**self.io.constants, **self._first, **sample})
        return dict(zip(names, outputs, strict=True))

    def restart(self) -> None:
        for name, zeros in self._first.items():
            self._inputs[name].update_inplace(zeros)

    def run(self, batch: Any) -> Any:
        count = len(batch)
        arrays = self.io.arrays(batch)
        if count < self._size:
            for name, array in arrays.items():
                self._staging[name][:count] = array
            arrays = self._staging
        try:
            for name, array in arrays.items():
                self._inputs[name].update_inplace(array)
            self._session.run_with_iobinding(self._binding)
            outputs = [self._outputs[name].numpy() for name in self.io.outputs]
            for name, source in self.io.state.items():
                self._inputs[name].update_inplace(self._outputs[source].numpy())
        except Exception as error:
            raise failure(self._model, f"running a batch of {self._size}", error) from error
        return self.io.answers(outputs, count, self._size)


class GeneralWorker:
    """What runs a model that is not plain: a lane for each batch size, on the one stream of ``owner``."""

    def __init__(self, owner: Any, lanes: Mapping[int, GeneralLane]) -> None:
        self._owner, self._lanes = owner, dict(lanes)
        self.captures = tuple(lane.capture for lane in lanes.values())
        self.plans = tuple(lane.plan for lane in lanes.values())

    def restart(self) -> None:
        for lane in self._lanes.values():
            lane.restart()

    def run(self, batch: Any) -> np.ndarray:
        count, largest = len(batch), max(self._lanes)
        classes: np.ndarray
        if count > largest and next(iter(self._lanes.values())).io.fixed_batch:
            classes = self._owner.in_parts(batch, largest, self.run)
            return classes
        classes = self._owner.taken(self._lanes[next_size(self._lanes, count)].run(batch))
        return classes

    def replay(self) -> Callable[[], None]:
        return self._lanes[max(self._lanes)].enqueue
