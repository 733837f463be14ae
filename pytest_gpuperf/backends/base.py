"""The contract of a backend: all that a caller may ask of a device and of a compiled kernel file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pytest_gpuperf.backends.geometry import Geometry

if TYPE_CHECKING:  # at run time it would be a third of the start of a process that needs no NumPy
    import numpy as np

    from pytest_gpuperf.backends.declarations import Declarations
    from pytest_gpuperf.backends.signature import Signature, Variable
    from pytest_gpuperf.backends.timer import Timer

Traffic = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """What one launch of kernel ``name`` did, or so many launches: ``traffic`` is ``Program.trace``'s.

    ``figures`` are ``Program.figures``' of them. ``cycles``: those in which SMs were active, by which
    occupancies are weighed; 0 where not known.
    """

    name: str
    traffic: tuple[Traffic, ...]
    figures: Mapping[str, float]
    cycles: float = 0.0
    launches: int = 1


class DeviceArray(Protocol):
    """An array on the device, C-contiguous unless its owner made it otherwise.

    ``contents`` names what is in it, the same for the same values; None where that is not known, such as once
    a kernel or another library may have written to it. The owner sets it, and a launch that may write clears
    it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    contents: str | None

    def get(self) -> np.ndarray:
        """Copy it to the host, after everything enqueued so far has finished."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Work that was captured: ``launch`` enqueues all of it again.

    It returns what the captured call returned. ``works`` are the kernels, copies and memsets in it, 0 where
    they are not known.
    """

    launch: Callable[[], Any]
    works: int = 0


class Program(Protocol):
    """One compiled kernel file.

    Arguments of a launch are checked already: device arrays, or NumPy scalars of the declared dtype. Kernels
    have the names by which ``signature`` was asked for them, or the plain ones of their declarations.
    """

    def signature(self, name: str) -> Signature:
        """Ask the compiler for the kernel that a C++ expression names; raises Unresolved if it names none."""

    def variable(self, name: str) -> Variable | None:
        """Ask the compiler for a variable; None if this program uses none of that name.

        Raises Unresolved if the file has none.
        """

    def read(self, variable: Variable) -> np.ndarray:
        """Copy a variable to the host, after everything enqueued so far has finished."""

    def write(self, variable: Variable, values: np.ndarray) -> None:
        """Copy values of the variable's own type and shape into it, after everything enqueued so far."""

    def code_hash(self, name: str | None) -> str | None:
        """Return the hash of the machine code of kernel ``name``, which other kernels do not change.

        ``name`` None: that of the whole file. Return None if the backend has none of its own.
        """

    def prepare(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Callable[[], None]:
        """Return what enqueues this launch of kernel ``name`` each time it is called, at little cost."""

    def trace(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> tuple[Traffic, ...]:
        """Run kernel ``name`` and count its memory traffic; raises Unavailable if nothing can count it.

        Returns (requests, sectors or wavefronts, the fewest that could serve them) of global loads, global
        stores, shared loads and shared stores. The arrays are written as by one launch.
        """

    def figures(self, name: str) -> Mapping[str, float]:
        """Return what else is known of kernel ``name``, by name, after it was traced; {} if nothing is.

        On a GPU ``dram_bytes_read``, ``dram_bytes_written``, ``instructions`` (a warp's) and ``occupancy``
        (active warps of those that an SM can hold) of the launch, and of the compiled function
        ``registers`` and ``spill_bytes`` a thread and ``shared_bytes`` a block.
        """


class Backend(Protocol):
    """One device and how to run kernels on it.

    ``name`` is the backend's ("cuda"), ``device_name`` the maker's for the device, ``uuid`` the unit's own;
    ``pci`` the PCI bus id of the whole GPU, None if there is none whose health could be watched;
    ``compute_capability`` such as (9, 0), None if there is none. ``context`` and ``stream`` are PyCUDA's or
    cuda.core's own objects on cuda, else None.

    ``judges_times``: ``timer`` reads a clock of the device's own, and its times are judged.
    ``models_traffic``: ``trace`` is a model's.
    ``l2_bytes``, ``peak_bandwidth`` and ``peak_flops`` (bytes and operations a second, theoretical, the
    latter of the narrowest type) are the device's, 0 where not known, and so is ``peak_fp32``, without tensor
    cores.
    ``seconds`` is how long a kernel may run before it is given up. ``lost`` says why nothing in this process
    can use the device any more, "" while something can; ``stuck``: not even an orderly exit can, since a
    kernel does not end.
    ``compiling`` is entered while a compiler runs that leaves the device idle: a session then lets others use
    the device.
    """

    name: str
    device_name: str
    uuid: str
    pci: str | None
    compute_capability: tuple[int, int] | None
    context: Any
    stream: Any
    judges_times: bool
    models_traffic: bool
    l2_bytes: int
    peak_bandwidth: float
    peak_flops: float
    peak_fp32: float
    seconds: float
    lost: str
    stuck: bool
    compiling: Callable[[], AbstractContextManager[None]]

    @property
    def compiler_version(self) -> str:
        """Name the compiler of the kernels, such as "NVRTC 13.0.88"; "" if there is none. Raises nothing."""

    def place(self) -> dict[str, Any]:
        """Return the part of a measurement's place that this device decides (flat, JSON scalars)."""

    def software(self) -> Mapping[str, str]:
        """Return the versions of what runs below the kernels, by name, as far as they are known."""

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Allocate an uninitialised array; raises GpuperfError if there is no room."""

    def to_device(self, host: np.ndarray) -> DeviceArray:
        """Copy a NumPy array into a new C-contiguous one on the device."""

    def free(self, array: DeviceArray) -> None:
        """Give the array's memory back now; using it later is an error, not a crash."""

    def address(self, argument: Any) -> int | None:
        """Return the device address of an argument, None unless it is an array on this device.

        Raises KernelError for an array that was freed.
        """

    def owns_memory(self, array: Any) -> bool:
        """Say whether an array is all of an allocation that ``empty`` or ``to_device`` made."""

    def copy(self, destination: DeviceArray, source: DeviceArray) -> None:
        """Enqueue a copy between two arrays of as many bytes."""

    def free_memory(self) -> int:
        """Return how many bytes could be allocated now."""

    def load(
        self, file: Declarations, options: Sequence[str] = (), instance: Signature | None = None
    ) -> Program:
        """Compile a kernel file, or take it from the cache; raises KernelError with the compiler's line.

        ``options`` are nvcc's. ``instance``: a template's, to be compiled with the file's own kernels.
        """

    def count(self, work: Callable[[], Any]) -> list[Counted]:
        """Call ``work`` twice, and of the second time count each kernel that it launches.

        The first time is for what is compiled, tuned or loaded at first use. A model counts the kernels of
        this plugin alone. Raises Unavailable if nothing can count them.
        """

    def capture(self, work: Callable[[], Any]) -> Graph:
        """Call ``work`` twice, and the second time capture what it enqueues on ``stream`` instead of run it.

        The first time is for what is compiled, tuned or allocated at first use. While it is called,
        ``stream`` is the current one of libraries that have one. Where there are no graphs, the work itself
        is returned. Raises KernelError, with the reason, for what cannot be captured.
        """

    def peak_memory(self, work: Callable[[], Any]) -> int:
        """Call ``work``; return the most bytes that it allocated at once, beyond what there was before.

        Only what is taken from the device itself: what a library's own allocator keeps is no news to it.
        Raises Unavailable where nothing records it.
        """

    def timer(self) -> Timer:
        """Return the stopwatch on ``stream``; raises Unavailable unless ``judges_times``."""

    def synchronize(self) -> None:
        """Wait for everything enqueued; raises KernelError if a kernel did something forbidden."""

    def close(self) -> None:
        """Give the device back; closing twice is no error, using an array afterwards is."""
