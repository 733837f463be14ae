"""MLPerf inference: LoadGen, a system under test on ONNX Runtime, models, datasets and accuracy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pytest_gpuperf.errors import Unavailable


def imported(module: str, failing: str, extra: str = "mlperf") -> Any:
    """Import ``module``; raises Unavailable that begins with ``failing`` and names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Unavailable(f"{failing} ({error}): pip install 'pytest-gpuperf[{extra}]'") from error
