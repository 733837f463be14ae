"""The examples with real weights, as they are: each runs where its wheel is installed."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WHEELS = {"magika": 1, "silero_vad": 1, "rapidocr": 2}  # and how many tests use it
NEEDED = ("mlperf_loadgen", "onnx", "onnxruntime", "cv2")


@pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="needs LoadGen, onnx, onnxruntime and OpenCV")
def test_models_of_wheels(pytester: pytest.Pytester):
    shutil.copy(EXAMPLES / "test_models_of_wheels.py", pytester.path)
    there = sum(count for name, count in WHEELS.items() if find_spec(name) is not None)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(passed=there, skipped=4 - there)
    if there < 4:
        result.stdout.fnmatch_lines(["*needs the weights in a wheel: pip install --no-deps *"])
