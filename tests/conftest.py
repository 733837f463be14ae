"""Fixtures of the plugin's own tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """No test's outcome depends on where it runs: CI's variables and the user's own settings stay out."""
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "MODEL_DIR", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
