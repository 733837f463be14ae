"""Where compiled kernels and models are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$PYTEST_GPUPERF_CACHE, or the user's cache folder."""
    chosen = os.environ.get("PYTEST_GPUPERF_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return platformdirs.user_cache_path("pytest-gpuperf")
