"""A model in ONNX Runtime: its file, the sessions opened for it, and how it runs on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import models, quantised, weights
from pytest_gpuperf.mlperf.interface import Interface, failure
from pytest_gpuperf.mlperf.models import DTYPES, Model, Precision
from pytest_gpuperf.mlperf.scores import Answers


@dataclass(frozen=True, slots=True)
class Team:
    """How many batches a session runs at a time, and where the images lie: ``qsl`` "host" or "device".

    There are ``streams`` of each of the ``devices``; on the CPU so many batches run beside each other.
    """

    streams: int = 1
    devices: int = 1
    qsl: str = "host"


ALONE = Team()


def precision_file(model: Model, precision: Precision, digest: str) -> Path:
    """Return the ONNX file of a model in the precision, converted if it is not fp32; raises GpuperfError.

    What was converted is kept by ``digest``, the model's own.
    """
    if precision == "fp32":
        return model.path
    try:
        return (quantised.int8 if precision == "int8" else models.half_precision)(model, digest)
    except Exception as error:
        raise failure(model, f"converting it to {precision}", error) from error


class OnnxSession:
    """A model in ONNX Runtime: its file in the precision, and the sessions that are opened for it."""

    on_device: ClassVar[bool]
    offline_batch: ClassVar[int]  # images of a batch in Offline
    contract: Mapping[str, str] = MappingProxyType({})  # what makes its figures others than those of its like

    def __init__(
        self,
        onnxruntime: Any,
        model: Model,
        precision: Precision,
        sizes: tuple[int, ...],
        stream: int | None = None,
        threads: int | None = None,
        team: Team = ALONE,
    ) -> None:
        self.ort, self.threads, self.team = onnxruntime, threads, team
        self.model, self.precision, self.batch_sizes = model, precision, sizes
        self.dtype: Any = DTYPES[precision]
        self.answers = Answers()
        digest = weights.digest(model.path)  # once: a large file takes a tenth of a second
        self.path = precision_file(model, precision, digest)
        self.description: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "model_sha256": digest,
            "batch_sizes": " ".join(map(str, sizes)),
        }
        self.load(stream)

    def load(self, stream: int | None) -> None:
        """Open what runs the batch sizes, on the CUDA stream with that handle."""
        raise NotImplementedError

    def run(self, batch: Any) -> np.ndarray:
        """Return the class of each sample, or where its answer is kept."""
        raise NotImplementedError

    def restart(self) -> None:
        """Begin again with the state that goes from query to query."""

    def taken(self, answers: Any) -> np.ndarray:
        """Return the classes, or where answers of another kind are kept."""
        return answers if self.model.score is None else self.answers.places(answers)

    def _settle(self, io: Interface) -> None:
        """Take over what the file takes: its types, and its batch size if it has but one."""
        self.dtype, io.given = io.dtype, self.answers
        if io.fixed_batch:
            self.batch_sizes = (io.fixed_batch,)
            self.description["fixed_batch"] = io.fixed_batch

    def in_parts(self, batch: Any, size: int, run: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Run a batch in parts of ``size``, the last one filled up with its last sample."""
        count = len(batch)
        parts = []
        for start in range(0, count, size):
            chosen = np.minimum(np.arange(start, start + size), count - 1)
            parts.append(run(batch[chosen])[: min(size, count - start)])
        return np.concatenate(parts)

    def open(self, name: str, settings: Mapping[str, str]) -> Any:
        """Return an InferenceSession all of whose nodes are on the provider ``name``; raises GpuperfError."""
        options = self.ort.SessionOptions()
        options.log_severity_level = 3  # warnings (of unused initialisers, ...) would flood a test's output
        if self.threads:
            options.intra_op_num_threads = self.threads
        if self.on_device:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = self.ort.InferenceSession(str(self.path), options, providers=[(name, settings)])
        except Exception as error:
            raise failure(self.model, "loading the graph", error) from error
        session.disable_fallback()
        if session.get_providers()[0] != name:
            raise GpuperfError(f"{self.model.name} was to run on {name} and got {session.get_providers()}")
        self.description["provider"] = name
        self.description["nodes"] = self._assigned(session, name)
        return session

    def _assigned(self, session: Any, name: str) -> str:
        """Return how many nodes the provider runs; raises GpuperfError if another one runs any."""
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return f"all on {name} (no fallback allowed)"
        subgraphs = session.get_provider_graph_assignment_info()
        nodes = [(node.op_type, graph.ep_name) for graph in subgraphs for node in graph.get_nodes()]
        count, elsewhere = len(nodes), [f"{kind} on {where}" for kind, where in nodes if where != name]
        if elsewhere:
            raise GpuperfError(
                f"{len(elsewhere)} of {count} nodes of {self.model.name} are not on {name}: {elsewhere[:5]}"
            )
        return f"{count} of {count} on {name}"


class CpuSession(OnnxSession):
    """ONNX Runtime's CPU provider; any batch size runs unpadded, unless the file has one of its own."""

    on_device = False
    offline_batch = 8

    def load(self, stream: int | None) -> None:
        self._session = self.open("CPUExecutionProvider", {})
        self._io = Interface(self._session, self.model, self.precision)
        self._settle(self._io)
        # A session on the CPU may be run by several threads, but state goes from one query to the next.
        self.workers = (self,) * (1 if self._io.state else self.team.streams)
        self._names = [*self._io.outputs, *self._io.state.values()]
        self._given: dict[str, np.ndarray] = {}
        self.restart()

    def restart(self) -> None:
        self._given = {**self._io.constants, **self._io.first_state()}

    def run(self, batch: Any) -> np.ndarray:
        size = self._io.fixed_batch
        if size is None or len(batch) == size:
            return self._infer(batch, len(batch))
        return self.in_parts(batch, size, lambda part: self._infer(part, size))

    def _infer(self, batch: Any, count: int) -> np.ndarray:
        try:
            outputs = self._session.run(self._names, {**self._given, **self._io.arrays(batch)})
        except Exception as error:
            raise failure(self.model, f"running a batch of {count}", error) from error
        if self._io.state:
            self._given.update(zip(self._io.state, outputs[len(self._io.outputs) :], strict=True))
        return self.taken(self._io.answers(outputs[: len(self._io.outputs)], count, count))

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None
