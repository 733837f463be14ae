"""A GPU that is not here: kernels are compiled for it, and nothing runs."""

from __future__ import annotations

from _pytest.outcomes import Skipped


class NeedsResult(Skipped):
    """A test needs a result of a GPU that is not here.

    An outcome to pytest, so that no ``except Exception`` of a test's catches it, and fixtures are torn down.
    """
