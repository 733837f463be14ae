"""A process of its own for each test that runs LoadGen, with a stand-in for the model at hand."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest_gpuperf

REPOSITORY = Path(pytest_gpuperf.__file__).parents[1]

# A stand-in for the model, so that LoadGen alone is under test: the class of an image is its only value.
PRELUDE = """
import json, os, sys, threading, time
from pathlib import Path
import numpy as np
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import accuracy, loadgen, models, phase, session

class Numbers:
    name = "numbers"
    def __init__(self, count=None, labels=None):
        self.labels = (np.arange(100) % 10 if labels is None else labels)[:count]
    def __len__(self):
        return len(self.labels)
    def images(self, indices):
        return (np.asarray(indices) % 10).astype(np.float32)[:, None]

class Echo:
    precision, batch_sizes, dtype = "fp32", (1, 8), np.float32
    description = {"provider": "none"}
    model = models.Model("echo", Path("echo.onnx"), "by hand", Numbers, input_shape=(1,))
    runs = 0
    def run(self, batch):
        self.runs += 1
        time.sleep(0.001)
        return batch[:, 0].astype(np.int64)
    held = released = 0
    def hold(self, images):
        self.held += 1
        def release():
            self.released += 1
        return release

def show(**values):
    print(json.dumps(values))

def error_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except GpuperfError as error:
        return str(error)
"""


def child(code, folder, timeout=60):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTEST_GPUPERF_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def shown(code, folder, timeout=60):
    """What the child showed last; it must have ended well."""
    finished = child(code, folder, timeout)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])
