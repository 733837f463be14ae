"""A model in ONNX Runtime: what both backends share, and the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from pytest_gpuperf import files
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import models
from pytest_gpuperf.mlperf.models import Model

Backend = Literal["cuda", "cpu"]
Precision = Literal["fp32", "fp16"]
DTYPES: Mapping[str, type[np.floating[Any]]] = {"fp32": np.float32, "fp16": np.float16}


def failure(model: Model, doing: str, error: Exception) -> GpuperfError:
    """ONNX Runtime's exception as one sentence; it has a class for each status and no public base of its
    own.
    """
    text = " ".join(str(error).split())
    if "allocate memory" in text or "out of memory" in text.lower():
        return GpuperfError(
            f"{model.name} does not fit into memory while {doing}: use a smaller batch ({text[:300]})"
        )
    return GpuperfError(f"ONNX Runtime failed while {doing} ({model.name}, {model.path}): {text[:500]}")


class Interface:
    """The model's input and the output in use, checked against what the dataset gives."""

    def __init__(self, session: Any, model: Model, precision: Precision) -> None:
        expected = {"fp32": "tensor(float)", "fp16": "tensor(float16)"}[precision]
        inputs = session.get_inputs()
        found = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
        shape = list(inputs[0].shape[1:]) if inputs else []
        fits = len(shape) == len(model.input_shape) and all(
            not isinstance(size, int) or size == wanted
            for size, wanted in zip(shape, model.input_shape, strict=True)
        )
        if len(inputs) != 1 or inputs[0].type != expected or not fits:
            raise GpuperfError(
                f"{model.path} takes {found or 'no input'}; {model.name} is fed one {expected} "
                f"[N, {', '.join(map(str, model.input_shape))}]"
            )
        outputs = {output.name: output for output in session.get_outputs()}
        name = model.output or next(iter(outputs))
        if name not in outputs or (model.output is None and len(outputs) > 1):
            raise GpuperfError(
                f'{model.path} has the outputs {", ".join(outputs)}; Model.output is "{model.output}"'
            )
        self.input, self.batch, self.output = inputs[0].name, inputs[0].shape[0], name
        self._offset = model.label_offset

    def require_batch(self, size: int, model: Model) -> None:
        if isinstance(self.batch, int) and self.batch != size:
            raise GpuperfError(f"{model.path} only takes batches of {self.batch}; {size} was asked for")

    def classes(self, output: np.ndarray) -> np.ndarray:
        """int64 [n] from integer classes [n] or [n, 1], or from scores [n, classes]."""
        found = output if np.issubdtype(output.dtype, np.integer) else output.argmax(axis=-1)
        return found.reshape(-1).astype(np.int64, copy=False) + self._offset


class OnnxSession:
    """What both backends share: the facts, the file for the precision, and the ONNX Runtime session."""

    backend: Backend

    def __init__(self, onnxruntime: Any, model: Model, precision: Precision, sizes: tuple[int, ...]) -> None:
        self.ort = onnxruntime
        self.model, self.precision, self.batch_sizes = model, precision, sizes
        self.dtype = DTYPES[precision]
        self._path = model.path if precision == "fp32" else models.half_precision(model)
        self.description: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "model_sha256": files.sha256(model.path)[:16],
            "batch_sizes": " ".join(map(str, sizes)),
        }

    def open(self, provider: Any) -> Any:
        name = provider[0] if isinstance(provider, tuple) else provider
        options = self.ort.SessionOptions()
        options.log_severity_level = (
            3  # its warnings (unused initialisers, ...) would swamp the test's output
        )
        if name != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = self.ort.InferenceSession(str(self._path), options, providers=[provider])
        except Exception as error:
            raise failure(self.model, "loading the graph", error) from error
        session.disable_fallback()
        if session.get_providers()[0] != name:
            raise GpuperfError(f"{self.model.name} was to run on {name} and got {session.get_providers()}")
        self.description["provider"] = name
        self.description["nodes"] = self._assigned(session, name)
        return session

    def _assigned(self, session: Any, name: str) -> str:
        """How many nodes the provider runs; raises GpuperfError where another one runs any."""
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return f"all on {name} (no fallback allowed)"
        elsewhere: list[str] = []
        count = 0
        for subgraph in session.get_provider_graph_assignment_info():
            nodes = subgraph.get_nodes()
            count += len(nodes)
            if subgraph.ep_name != name:
                elsewhere += [f"{node.op_type} on {subgraph.ep_name}" for node in nodes]
        if elsewhere:
            raise GpuperfError(
                f"{len(elsewhere)} of {count} nodes of {self.model.name} are not on {name}: {elsewhere[:5]}"
            )
        return f"{count} of {count} on {name}"


class CpuSession(OnnxSession):
    """ONNX Runtime's CPU provider; any batch size runs unpadded."""

    backend: Backend = "cpu"

    def __init__(self, onnxruntime: Any, model: Model, precision: Precision, sizes: tuple[int, ...]) -> None:
        super().__init__(onnxruntime, model, precision, sizes)
        self._session = self.open("CPUExecutionProvider")
        self._io = Interface(self._session, model, precision)
        for size in sizes:
            self._io.require_batch(size, model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        try:
            output = self._session.run([self._io.output], {self._io.input: batch})[0]
        except Exception as error:
            raise failure(self.model, f"running a batch of {len(batch)}", error) from error
        return self._io.classes(output)

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None
