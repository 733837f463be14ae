"""The errors a suite's author or a runner's owner can meet; each is one sentence that says what to do.

The plugin shows them without a traceback, with the line of the suite they come from.
"""

from pytest_gpuperf.text import inert


class GpuperfError(Exception):
    """Something the user can mend: the message names the file, the value and the remedy."""

    def __str__(self) -> str:
        return inert(super().__str__())


class KernelError(GpuperfError):
    """A kernel that cannot be compiled or called as asked, or that did something forbidden when it ran."""


class BaselineError(GpuperfError):
    """A baseline file that cannot be read or written; the file is left as it was."""


class NotFit(GpuperfError):
    """The machine cannot measure now (device lost, phases at odds): running elsewhere or later may do."""


class NotFree(NotFit):
    """The device's lock was not got, for which there has been a wait already."""


class Unavailable(GpuperfError):
    """A device, compiler or library is not there; the message names the package to install."""


class Unsupported(Unavailable, KernelError):
    """A kernel that this backend cannot run, though another could; the message says why, and where."""
