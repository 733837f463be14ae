"""Write the two files in pytest_gpuperf/mlperf/data: the digits, and the head of ``resnet50-digits``.

    python tools/fit_head.py [optdigits.tes]

Needs onnx and onnxruntime. The head is ridge regression in closed form on the network's 2,048 features of the
1,000 images that are not held out, standardised; the standardisation is folded into the weights. The solution
depends on the last bits of a machine's convolutions, so the result is shipped and not recomputed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pytest_gpuperf.mlperf import datasets, resnet50
from pytest_gpuperf.mlperf.models import SEED

DATA = Path(__file__).parents[1] / "pytest_gpuperf" / "mlperf" / "data"
RIDGE = 100.0
CLASSES = 10


def write_digits(source: Path) -> None:
    """Convert UCI's text (64 pixels and the label a line, optionally gzipped) to data/digits.npz."""
    table = np.loadtxt(source, delimiter=",", dtype=np.uint8)
    held_out = np.random.default_rng(0).permutation(len(table))[1000:].astype(np.uint16)
    pixels, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64]
    np.savez_compressed(DATA / "digits.npz", pixels=pixels, labels=labels, held_out=held_out)


def outputs(model: bytes, images: np.ndarray) -> np.ndarray:
    """Run the model on uint8 [n, 8, 8] images on the CPU; returns float32 [n, outputs]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = (datasets.enlarge(images[start : start + 16]) for start in range(0, len(images), 16))
    return np.concatenate([session.run(None, {"input": batch})[0] for batch in batches])


def fit(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head to features [n, 2048] and labels [n]: weight float32 [2048, 10], bias float32 [10]."""
    x = features.astype(np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    z = (x - mean) / deviation
    targets = np.eye(CLASSES)[labels] - 1 / CLASSES
    weight = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ targets)
    folded = weight / deviation[:, None]
    return folded.astype(np.float32), (-mean @ folded).astype(np.float32)


def write_head() -> None:
    """Fit the head and write it with what the network then predicts to data/resnet50_digits.npz."""
    pixels, labels, held_out = datasets.load_digits()
    training = np.setdiff1d(np.arange(len(pixels)), held_out)
    features = outputs(resnet50.build(SEED).SerializeToString(), pixels[training])
    head = fit(features, labels[training])
    logits = outputs(resnet50.build(SEED, head).SerializeToString(), pixels[held_out])
    predictions = logits.argmax(axis=1)
    ranked = np.sort(logits, axis=1)
    print(f"correct: {np.count_nonzero(predictions == labels[held_out])} of {len(held_out)}")
    np.savez_compressed(
        DATA / "resnet50_digits.npz",
        weight=head[0],
        bias=head[1],
        predictions=predictions.astype(np.uint8),
        margins=ranked[:, -1] - ranked[:, -2],
        checksum=np.str_(resnet50.checksum(SEED)),
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_digits(Path(sys.argv[1]))
    write_head()
