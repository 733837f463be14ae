"""The paths that a run was asked for, and whether it ran them in full."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths that were given, and whether they were run in ``full``: no test was picked out of them."""

    paths: tuple[Path, ...]
    full: bool

    def covers(self, path: Path) -> bool:
        """Return whether a file or folder is one of the paths, or below one."""
        return any(path.is_relative_to(given) for given in self.paths)

    def covers_all(self, path: Path) -> bool:
        """Return whether every test of a file or folder was to be run."""
        return self.full and self.covers(path)


def scope_of(config: pytest.Config, deselected: bool) -> Scope:
    """Return what a run was asked for; ``deselected``: a plugin or conftest left tests out."""
    option = config.option
    # a controller of xdist workers is not told what they deselect
    picked = deselected or option.keyword or option.markexpr or option.deselect
    nodeids = any("::" in argument for argument in config.args)
    paths = tuple(config.invocation_params.dir / argument for argument in config.args)
    return Scope(paths, not picked and not nodeids)
