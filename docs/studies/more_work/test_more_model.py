"""LoadGen over ResNet-50 with GPUPERF_STUDY_MORE blocks more in its third stage, some 5 % of its work each.

GPUPERF_STUDY_MORE=1 pytest docs/studies/more_work/test_more_model.py --gpuperf --gpuperf-calibrate=20
"""

import os

import pytest

from pytest_gpuperf import on_gpu

MORE = int(os.environ.get("GPUPERF_STUDY_MORE", "0"))


@pytest.fixture
def resnet50(request, tmp_path):
    """The embedded model, or the same with more blocks under its name: the question stays the same."""
    from pytest_gpuperf.mlperf import models
    from pytest_gpuperf.mlperf import resnet50 as recipe

    model = models.resolve(request.param)
    if not MORE:
        return model
    first, second, third, last = recipe.BLOCKS
    blocks = (first, second, third + MORE, last)
    return models.with_blocks(tmp_path / "more.onnx", blocks)


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_performance(request, loadgen, resnet50, scenario):
    precision = "fp16" if on_gpu(request.config) else "fp32"
    loadgen(resnet50, scenario, precision=precision, seconds=3)
