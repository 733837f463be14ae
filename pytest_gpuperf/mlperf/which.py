"""Which ResNet-50 the fixture ``resnet50`` is: MLPerf's own or the embedded one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def folders(config: pytest.Config) -> tuple[Path | None, Path | None]:
    """Return the folders of MLPerf's model and of ImageNet: flags, else MODEL_DIR and DATA_DIR."""
    model = config.option.gpuperf_model_dir or os.environ.get("MODEL_DIR")
    data = config.option.gpuperf_data_dir or os.environ.get("DATA_DIR")
    return Path(model) if model else None, Path(data) if data else None


def name_model(metafunc: pytest.Metafunc) -> None:
    """Put the model's name into the id of every test that uses it, so no figure is read without it."""
    marks = metafunc.definition.iter_markers("parametrize")
    if "resnet50" not in metafunc.fixturenames or any("resnet50" in str(mark.args[0]) for mark in marks):
        return
    name = "resnet50" if folders(metafunc.config)[0] else "resnet50-digits"
    metafunc.parametrize("resnet50", [name], indirect=True)
