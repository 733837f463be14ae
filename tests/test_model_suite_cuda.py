"""LoadGen's suite on a GPU: recorded, red for a slower model, and red for a spoilt one on accuracy alone.

Takes about three minutes. Figures are compared within this run only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gpuproject import red, require_loadgen, run
from recordedruns import load

pytestmark = pytest.mark.gpu

SUITE = """
import pytest

@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_performance(loadgen, resnet50, scenario):
    loadgen(resnet50, scenario, seconds=2)

def test_accuracy(loadgen, resnet50):
    loadgen(resnet50, mode="accuracy")
"""
ANOTHER_MODEL = """
from dataclasses import replace
from pathlib import Path

import pytest

@pytest.fixture
def resnet50(request):
    from pytest_gpuperf.mlperf import models
    return replace(models.resolve(request.param), path=Path(__file__).parent / "another.onnx")
"""


@pytest.fixture(scope="module")
def model():
    require_loadgen()
    from pytest_gpuperf.mlperf import models

    return models.resolve()


@pytest.fixture(scope="module")
def project(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "baselines").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_model.py").write_text(SUITE)
    status, output = run(folder, "--gpuperf-update")
    assert status == 0, output
    return folder


@pytest.fixture
def another(project: Path, tmp_path: Path) -> Path:
    """The project with a model of its own, which the test writes to another.onnx."""
    copy = tmp_path / "another"
    shutil.copytree(project, copy)
    (copy / "conftest.py").write_text(ANOTHER_MODEL)
    return copy


def test_one_more_block_is_red(another: Path):
    """By the device's clock, of whatever the host's makes: some 4 % of the work."""
    load("more_work/more_blocks.py").with_blocks(another / "another.onnx", (3, 4, 7, 3))
    status, output = run(another, "-k", "performance")
    assert status == 1, output
    assert output.count("gpu_compute_time") >= 2
    assert red(output) == {
        f"test_performance[resnet50-digits-{name}]" for name in ("SingleStream", "Offline")
    }


def test_a_perturbed_layer_is_red_on_accuracy_alone(another: Path, model):
    import numpy as np
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(model.path))
    layer = next(weights for weights in proto.graph.initializer if weights.name == "stage1_block2_b_w")
    weights = numpy_helper.to_array(layer)
    noise = np.random.default_rng(0).standard_normal(weights.shape, np.float32) * weights.std()
    layer.CopyFrom(numpy_helper.from_array(weights + noise, layer.name))
    onnx.save(proto, str(another / "another.onnx"))
    status, output = run(another)
    assert status == 1, output
    assert red(output) == {"test_accuracy[resnet50-digits]"}
