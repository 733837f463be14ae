"""Real weights that come in wheels, under LoadGen, each with an accuracy of its own.

    pip install --no-deps magika==1.0.3 silero-vad==6.2.3 rapidocr==3.10.0
    pytest examples/test_models_of_wheels.py

Only the ONNX files in them are used, not the packages' own code, so their dependencies are not needed.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.mlperf import Model


def files_of(package: str, wheel: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the weights in a wheel: pip install --no-deps {wheel}")
    return Path(found.origin).parent


# ----------------------------------------------- magika: what kind of file is it?


class Files:
    """The first and last 1,024 bytes of small texts, as magika's model takes them: padded with 256."""

    name = "texts"
    python = "import os\n\n\ndef main() -> None:\n    for name in os.listdir('.'):\n        print(name)\n"
    html = "<!DOCTYPE html>\n<html><head><title>A page</title></head><body><p>Text</p></body></html>\n"
    c = '#include <stdio.h>\n\nint main(void)\n{\n    printf("%d\\n", 3);\n    return 0;\n}\n'
    words = json.dumps([{"name": f"gpu {i}", "values": [i, i + 1], "nested": {"a": None}} for i in range(20)])
    texts = (("python", python * 4), ("json", words), ("html", html * 4), ("c", c * 4))

    def __init__(self, kinds: list[str], count: int | None = None) -> None:
        self._texts = [text for _, text in self.texts][:count]
        self.labels = np.array([kinds.index(kind) for kind, _ in self.texts][:count])

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        rows = np.full((len(indices), 2048), 256, np.int32)
        for row, index in zip(rows, indices, strict=True):
            data = np.frombuffer(self._texts[index].strip().encode(), np.uint8)
            row[: min(1024, len(data))] = data[:1024]
            row[-min(1024, len(data)) :] = data[-1024:]
        return rows


@pytest.fixture
def magika() -> Model:
    folder = files_of("magika", "magika==1.0.3") / "models" / "standard_v3_3"
    kinds = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    return Model("magika", folder / "model.onnx", "1.0.3", dataset=lambda count: Files(kinds, count))


def test_magika(loadgen, magika):
    assert loadgen(magika, mode="accuracy").accuracy == 1
    loadgen(magika, "SingleStream", seconds=2)


# ----------------------------------------------- silero-vad: is somebody speaking?


class Speech:
    """60 chunks of 32 ms: noise, then what has a voice's pitch and formants for 20 of them, then noise."""

    name = "formants"

    def __init__(self, count: int | None = None) -> None:
        self.labels = [20 <= chunk < 40 for chunk in range(60)][:count]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._chunk(int(index)) for index in indices])

    def _chunk(self, index: int) -> np.ndarray:
        if not 20 <= index < 40:
            return 0.001 * np.random.default_rng(index).standard_normal(576, np.float32)
        seconds = (index * 512 + np.arange(576)) / 16_000
        sound = np.zeros(576)
        for pitch in 130 * np.arange(1, 28):
            formants = ((700, 200), (1200, 250), (2600, 350))
            loudness = sum(np.exp(-(((pitch - at) / wide) ** 2)) for at, wide in formants)
            sound += loudness * np.sin(2 * np.pi * pitch * seconds)
        return (0.12 * sound * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * seconds))).astype(np.float32)


def told(answers, labels):
    return [bool(answer[0] > 0.5) == label for answer, label in zip(answers, labels, strict=True)]


@pytest.fixture
def silero() -> Model:
    path = files_of("silero_vad", "silero-vad==6.2.3") / "data" / "silero_vad_16k_op15.onnx"
    asked = {"inputs": {"sr": 16_000}, "state": {"state": "stateN"}}
    return Model("silero-vad", path, "6.2.3", dataset=Speech, score=told, **asked)


def test_silero(loadgen, silero):
    assert loadgen(silero, mode="accuracy").score > 0.95
    loadgen(silero, "SingleStream", seconds=2)


# ----------------------------------------------- rapidocr: what is written, and where?


def drawn(height: int, width: int, text: str, x: int, y: int) -> np.ndarray:
    """Return a white image with black text, its values 0..1."""
    cv2 = pytest.importorskip("cv2", reason="drawing text needs opencv-python-headless")
    image = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2, cv2.LINE_AA)
    return image.astype(np.float32) / 255


class Lines:
    name = "drawn lines"
    texts = ("hello world", "GPU 12345", "red means red", "pytest", "latency 0.5")

    def __init__(self, count: int | None = None) -> None:
        self.labels = list(self.texts[:count])

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        images = np.stack([drawn(48, 320, self.labels[i], 8, 34) for i in indices])
        return (images.transpose(0, 3, 1, 2) - 0.5) / 0.5


class Pages(Lines):
    """The label is the box that the letters fill: left, right, top, bottom."""

    name = "drawn pages"
    places = ((10, 40), (60, 120), (30, 220), (120, 80))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def __init__(self, count: int | None = None) -> None:
        self.labels = [_box(self._page(x, y)[..., 0]) for x, y in self.places[:count]]

    def _page(self, x: int, y: int) -> np.ndarray:
        return drawn(256, 256, "hello", x, y)

    def images(self, indices: np.ndarray) -> np.ndarray:
        pages = np.stack([self._page(*self.places[i]) for i in indices])
        return ((pages - self.mean) / self.deviation).transpose(0, 3, 1, 2)


@pytest.fixture
def recognition() -> Model:
    path = files_of("rapidocr", "rapidocr==3.10.0") / "models" / "PP-OCRv6_rec_small.onnx"
    onnxruntime = pytest.importorskip("onnxruntime", reason="reads the characters out of the file")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    letters = ["", *session.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]

    def read(answers, labels):
        """Take the likeliest character of each step; repeated ones are one, the first is none (CTC)."""
        rows = [answer.argmax(axis=-1) for answer in answers]
        texts = ["".join(letters[k] for k in row[np.diff(row, prepend=-1) != 0]) for row in rows]
        return [text == label for text, label in zip(texts, labels, strict=True)]

    return Model("rapidocr-rec", path, "3.10.0", dataset=Lines, score=read)


@pytest.fixture
def detection() -> Model:
    path = files_of("rapidocr", "rapidocr==3.10.0") / "models" / "PP-OCRv6_det_small.onnx"

    def overlap(answers, labels):
        """Return the intersection over union of the box found and the letters' own."""
        boxes = [_box(1 - answer[0]) for answer in answers]
        return [_overlap(box, label) for box, label in zip(boxes, labels, strict=True)]

    return Model("rapidocr-det", path, "3.10.0", dataset=Pages, score=overlap)


def _box(page: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(page < 0.5)
    return columns.min(), columns.max(), rows.min(), rows.max()


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    wide = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    high = max(0, min(one[3], other[3]) - max(one[2], other[2]))
    area = sum((box[1] - box[0]) * (box[3] - box[2]) for box in (one, other)) - wide * high
    return wide * high / area


def test_recognition(loadgen, recognition):
    assert loadgen(recognition, mode="accuracy").score == 1
    loadgen(recognition, "SingleStream", seconds=2)


def test_detection(loadgen, detection):
    assert loadgen(detection, mode="accuracy").score > 0.5
    loadgen(detection, "SingleStream", seconds=2)
