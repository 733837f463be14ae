"""A plugin for pytest: ResNet-50 with GPUPERF_STUDY_MORE convolution blocks more in its third stage.

    PYTHONPATH=docs/studies/more_work PYTEST_PLUGINS=more_blocks GPUPERF_STUDY_MORE=1 \
        pytest suites/test_resnet50.py -k "performance and fp16" --gpuperf --gpuperf-calibrate=10

A block is some 4 % of the work. The suite and the question stay the same: the model keeps its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_gpuperf.mlperf.models import Model

MORE = int(os.environ.get("GPUPERF_STUDY_MORE", "0"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    from pytest_gpuperf.mlperf import models

    with pytest.MonkeyPatch.context() as patch:
        if MORE:
            patch.setattr(models, "resolve", lambda *_: slower())
        return (yield)


def slower() -> Model:
    from pytest_gpuperf.files import cache_folder
    from pytest_gpuperf.mlperf import models, resnet50

    first, second, third, last = resnet50.BLOCKS
    path = cache_folder() / f"more-blocks-{MORE}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    return models.with_blocks(path, (first, second, third + MORE, last))
