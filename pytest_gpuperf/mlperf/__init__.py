"""MLPerf inference: LoadGen, a system under test on ONNX Runtime, models, datasets and accuracy.

For suites: ``from pytest_gpuperf.mlperf import Model, Sut, read_logs``.
"""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from typing import Any

from pytest_gpuperf.errors import Unavailable

# A phase's clock. A test that replaces time.perf_counter, which was loaded after this, would let it wait for
# ever; and freezegun looks for that function in every module, so that it is wrapped.
perf_counter = partial(time.perf_counter)
_PUBLIC = {
    "Dataset": "datasets",
    "Model": "models",
    "StoredPredictions": "accuracy",
    "Sut": "sut",
    "read_logs": "logged",
    "torch_sut": "torch_module",
}


def __getattr__(name: str) -> Any:
    """Import what suites use when they do: NumPy is not needed before."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def imported(module: str, failing: str, extra: str = "mlperf") -> Any:
    """Import ``module``; raises Unavailable that begins with ``failing`` and names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Unavailable(f"{failing} ({error}): pip install 'pytest-gpuperf[{extra}]'") from error
