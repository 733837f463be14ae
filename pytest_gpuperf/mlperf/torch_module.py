"""A PyTorch module under LoadGen, as a ``Sut``: on a GPU in fp16, channels last, as a CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import models, resnet50
from pytest_gpuperf.mlperf.datasets import Dataset, Digits
from pytest_gpuperf.mlperf.sut import Sut


def torch_sut(
    name: str,
    module: Any,
    dataset: Callable[[int | None], Dataset],
    *,
    recipe: str = "",
    precision: str = "fp32",
    device: str | None = None,
    max_batchsize: int = 256,
    **fields: Any,
) -> Sut:
    """Return a ``Sut`` that runs ``module`` on images [n, channels, height, width] and answers their class.

    ``device`` is "cuda" where PyTorch has one, else "cpu". On a GPU every batch size is captured as a CUDA
    graph when it first comes, which the warm-up sees to; images are float32 in the dataset and
    ``precision``, "fp32" or "fp16", on the device, with TF32 off. ``fields`` are those of ``Sut``, such as
    ``score``, which gets the module's outputs as arrays. Raises Unavailable without PyTorch.
    """
    torch = _torch(name)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if precision not in models.DTYPES or (place == "cpu" and precision != "fp32"):
        raise GpuperfError(f'{name}: precision="{precision}" on {place}; give "fp32", or on a GPU "fp16"')
    runner = (_Graphs if place != "cpu" else _Eager)(torch, module, precision, place)
    scored = fields.get("score") is not None

    def run(batch: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = runner.run(batch)
        return outputs if scored else outputs.argmax(axis=-1)

    return Sut(
        name=name,
        run=run,
        dataset=dataset,
        recipe=recipe,
        precision=precision,
        max_batchsize=max_batchsize,
        on_device=place != "cpu",
        **fields,
    )


def _torch(name: str) -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise Unavailable(f"{name} needs PyTorch ({error}): pip install torch") from error


class _Eager:
    """The module as it is, on the CPU."""

    def __init__(self, torch: Any, module: Any, precision: str, place: str) -> None:
        self._torch, self._module = torch, module.eval().to(memory_format=torch.channels_last)

    def run(self, batch: np.ndarray) -> np.ndarray:
        torch = self._torch
        with torch.inference_mode():
            images = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
            found: np.ndarray = self._module(images).numpy()
            return found


class _Graphs:
    """The module on a GPU: a CUDA graph for each thread and batch size, on a stream of the thread's own."""

    def __init__(self, torch: Any, module: Any, precision: str, place: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self._torch, self._place = torch, place
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
        self._module = module.eval().to(place, self.dtype, memory_format=torch.channels_last)
        self._mine = threading.local()
        self._capturing = (
            threading.Lock()
        )  # beginning a capture waits for the device, and none may go on then

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.lane(tuple(batch.shape))(self._torch.from_numpy(np.ascontiguousarray(batch)))

    def lane(self, shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
        """Return what runs a batch of that shape, a tensor on the host, on this thread."""
        lanes: dict[tuple[int, ...], Callable[[Any], np.ndarray]] = vars(self._mine).setdefault("lanes", {})
        if shape not in lanes:
            with self._capturing:
                lanes[shape] = self._capture(shape)
        return lanes[shape]

    def _capture(self, shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
        torch = self._torch
        stream, graph = torch.cuda.Stream(self._place), torch.cuda.CUDAGraph()
        images = torch.zeros(shape, dtype=self.dtype, device=self._place)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(3):
                self._module(images)
            stream.synchronize()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = self._module(images)
            answers = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=True)

        def run(batch: Any) -> np.ndarray:
            with torch.inference_mode(), torch.cuda.stream(stream):
                images.copy_(batch, non_blocking=True)
                graph.replay()
                answers.copy_(outputs, non_blocking=True)
                stream.synchronize()
                found: np.ndarray = answers.numpy().copy()
                return found

        return run


def digits_module() -> Any:
    """Return ``resnet50-digits`` as a PyTorch module, with the weights of the ONNX file.

    Raises Unavailable without PyTorch.
    """
    torch = _torch(f"{models.DIGITS}-torch")
    head = models.digits_head()

    def conv(given: resnet50.Conv) -> Any:
        made = torch.nn.Conv2d(given.inputs, given.outputs, given.kernel, given.stride, given.kernel // 2)
        made.weight.data = torch.from_numpy(given.weights(models.SEED))
        torch.nn.init.zeros_(made.bias)
        return made

    class Block(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self, block: resnet50.Block) -> None:
            super().__init__()
            self.convs = torch.nn.ModuleList(map(conv, block.convs))
            self.shortcut = conv(block.shortcut) if block.shortcut else torch.nn.Identity()

        def forward(self, images: Any) -> Any:
            reduce, spatial, expand = self.convs
            inner = torch.relu(spatial(torch.relu(reduce(images))))
            return torch.relu(expand(inner) + self.shortcut(images))

    linear = torch.nn.Linear(*head.weight.shape)
    linear.weight.data = torch.from_numpy(np.ascontiguousarray(head.weight.T))
    linear.bias.data = torch.from_numpy(head.bias)
    nn = torch.nn
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear
    first = conv(resnet50.STEM), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(*first, *map(Block, resnet50.bottlenecks()), *ends)


def digits_sut(**options: Any) -> Sut:
    """Return ``resnet50-digits`` in PyTorch; ``options`` are those of ``torch_sut``."""
    recipe: Mapping[str, str] = {"recipe": f"torch, {models.digits_head().recipe}"}
    return torch_sut(f"{models.DIGITS}-torch", digits_module(), Digits, **{**recipe, **options})
