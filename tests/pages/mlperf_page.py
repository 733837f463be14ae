"""What the blocks of docs/mlperf.md leave to the reader: a small model for each name that they use."""

import json
from pathlib import Path

import numpy as np
import onnxmodels

from pytest_gpuperf.mlperf import Model  # noqa: F401

onnxmodels.channel("mine.onnx", layout="NCHW")
onnxmodels.bert("bert.onnx")
LINES = [f"line {number}" for number in range(64)]
LABELS = LINES
recognise = list


class MyImages:
    name = "my images"

    def __init__(self, count=None):
        self.labels = (np.arange(64) % 10)[:count]

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        found = np.zeros((len(indices), 3, 4, 4), np.float32)
        found[:, 0, 0, 0] = np.asarray(indices) % 10
        return found


class Squad(MyImages):
    name = "squad"

    def __init__(self, count=None):
        self.labels = [(0, 0)] * 8

    def images(self, indices):
        ids = (np.asarray(indices)[:, None] * 7 + np.arange(16)) % 100
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


LOGS = Path("results/resnet50/SingleStream/performance/run_1")
LOGS.mkdir(parents=True, exist_ok=True)
VALUES = {
    "loadgen_version": "6.0",
    "effective_scenario": "SingleStream",
    "effective_test_mode": "PerformanceOnly",
    "result_validity": "VALID",
    "num_errors": 0,
    "power_end": "now",
    "result_query_count": 1000,
    "early_stopping_latency_ss": 900_000,
}
(LOGS / "mlperf_log_detail.txt").write_text(
    "".join(
        ":::MLLOG " + json.dumps({"key": key, "value": VALUES[key], "metadata": {}}) + "\n" for key in VALUES
    )
)
