"""A dataset as far as its labels go."""

from __future__ import annotations

import numpy as np


class Labelled:
    """The first ``count`` of the class's own labels."""

    name, every = "numbers", range(10)

    def __init__(self, count: int | None = None) -> None:
        self.labels = np.array(self.every)[:count]

    def __len__(self) -> int:
        return len(self.labels)
