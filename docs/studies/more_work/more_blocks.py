"""A plugin for pytest: ResNet-50 with GPUPERF_STUDY_MORE convolution blocks more in its third stage.

    PYTHONPATH=docs/studies/more_work PYTEST_PLUGINS=more_blocks GPUPERF_STUDY_MORE=1 \
        pytest suites/test_resnet50.py -k "performance and fp16" --gpuperf --gpuperf-calibrate=10

A block is some 4 % of the work. The suite and the question stay the same: the model keeps its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
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
    """Return ``resnet50-digits`` with MORE blocks more in its third stage, written to the cache."""
    from pytest_gpuperf.cache import cache_folder
    from pytest_gpuperf.mlperf import resnet50

    first, second, third, last = resnet50.BLOCKS
    path = cache_folder() / f"more-blocks-{MORE}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    return with_blocks(path, (first, second, third + MORE, last))


def with_blocks(path: Path, blocks: Sequence[int]) -> Model:
    """Write ``resnet50-digits`` with so many residual blocks in its four stages to ``path``.

    It keeps its name and recipe, so a comparison with the original shows a regression.
    """
    from pytest_gpuperf.mlperf import models, resnet50

    head = models.digits_head()
    built = resnet50.build(models.SEED, (head.weight, head.bias), blocks)
    path.write_bytes(built.SerializeToString())
    return replace(models.digits_model(), path=path)
