"""Launch the kernels of a folder of .cu files as CUDA does; the ``kernels`` fixture's object.

kernels["transpose.cu"].transpose_tiled[grid, block](src, dst, rows, cols)
kernels["transpose.cu", "-DTILE=16"].transpose_tiled[grid, block, shared_bytes, stream](...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.base import Backend, Geometry, Program
from pytest_gpuperf.backends.declarations import Declaration, read
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.errors import KernelError

BY_KERNEL = "k-"
"""How a work's hash begins; one without it is of a whole file's machine code, as older versions made them."""


class Kernels:
    """The .cu files of ``folder`` on ``backend``; each is compiled once per process, when first launched."""

    def __init__(self, folder: Path, backend: Backend | Gpu) -> None:
        self.folder = Path(folder)
        self.backend = backend.device if isinstance(backend, Gpu) else backend
        self._files: dict[tuple[str, ...], KernelFile] = {}

    def __getitem__(self, key: str | tuple[str, ...]) -> KernelFile:
        """Return ``kernels["name.cu"]``, or ``kernels["name.cu", "-DTILE=16", ...]`` with nvcc's options."""
        key = (key,) if isinstance(key, str) else tuple(key)
        if key not in self._files:
            self._files[key] = self._open(*key)
        return self._files[key]

    def _open(self, name: str, *options: str) -> KernelFile:
        path = self.folder / name
        if path.is_file():
            return KernelFile(path, options, self.backend)
        if not self.folder.is_dir():
            raise KernelError(f"The kernels folder {self.folder} does not exist.")
        import difflib

        files = sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*.cu"))
        there = ", ".join(files) or "no .cu file"
        close = difflib.get_close_matches(name, files, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise KernelError(f"There is no kernel file {name!r} in {self.folder}; it holds {there}{meant}.")


class KernelFile:
    """One .cu file with one set of compile options; its kernels are attributes (or items, by name)."""

    def __init__(self, path: Path, options: tuple[str, ...], backend: Backend) -> None:
        self.path = path
        self.options = options
        self.backend = backend
        self.declarations = read(path)
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """Compile the file at first use; raises KernelError with the compiler's line."""
        if self._program is None:
            self._program = self.backend.load(self.declarations, self.options)
        return self._program

    def __getitem__(self, name: str) -> Kernel:
        return Kernel(self, self.declarations.find(name))

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("__"):  # copy, pickle and inspect ask for these; no kernel has such a name
            raise AttributeError(name)
        return self[name]


class Kernel:
    """A kernel without its launch geometry: ``kernel[grid, block]`` adds it."""

    def __init__(self, file: KernelFile, declaration: Declaration) -> None:
        self.file = file
        self.declaration = declaration

    def __getitem__(self, geometry: Any) -> Launch:
        """Bind it to ``[grid, block]``, ``[grid, block, shared_bytes]`` or these and a stream.

        The order is CUDA's. Grid and block are an int or one to three ints, x first.
        """
        if not isinstance(geometry, tuple) or not 2 <= len(geometry) <= 4:
            raise KernelError(
                f"{self.declaration.name} is launched as {self.declaration.name}[grid, block](...), with "
                f"shared memory in bytes and a stream after them where needed; [{geometry!r}] was given."
            )
        try:
            return Launch(self.file, self.declaration, Geometry.of(*geometry))
        except KernelError as error:
            raise KernelError(f"{self.declaration.name}: {error}") from None

    def __call__(self, *arguments: Any) -> None:
        name = self.declaration.name
        raise KernelError(f"{name} has no launch geometry; write {name}[grid, block](...).")

    def __repr__(self) -> str:
        return f"<kernel {self.declaration} of {self.file.path.name}>"


class Launch:
    """A kernel with its launch geometry: call it with the kernel's arguments to enqueue one launch.

    Attributes: ``name``, ``file``, ``declaration``, ``geometry``, ``backend``.
    """

    def __init__(self, file: KernelFile, declaration: Declaration, geometry: Geometry) -> None:
        self.file = file
        self.declaration = declaration
        self.name = declaration.name
        self.backend = file.backend
        self.geometry = geometry

    @property
    def code_hash(self) -> str | None:
        """Return the hash of the kernel's machine code, None if there is none."""
        return self.file.program.code_hash(self.name)

    def work_hash(self, *arguments: Any) -> str | None:
        """Hash all that the device is told to do: machine code, geometry, scalars, the arrays' contents.

        It ends with "?" where an array's contents are not known: such work is the same as none. The arrays'
        addresses are left out. None if there is no machine code.
        """
        code = self.code_hash
        if code is None:
            return None
        scalars = [a.item() if hasattr(a, "item") else a for a in arguments if not getattr(a, "shape", ())]
        arrays = [a for a in arguments if getattr(a, "shape", ())]
        contents = [getattr(a, "contents", None) for a in arrays]
        places = [[id(a) for a in arrays].index(id(a)) for a in arrays]  # which of them are one array
        shape = self.geometry
        told = repr((code, self.name, shape.grid, shape.block, shape.shared, scalars, contents, places))
        unknown = "?" if None in contents else ""
        return BY_KERNEL + hashlib.sha256(told.encode()).hexdigest()[:16] + unknown

    def bind(self, *arguments: Any) -> Callable[[], None]:
        """Check the arguments once and return the launch, which a stopwatch calls many times."""
        checked = check(self.declaration, arguments, self.backend)
        for parameter, argument in zip(self.declaration.parameters, arguments, strict=True):
            if parameter.pointer and not parameter.const:
                _may_be_written(argument)
        return self.file.program.prepare(self.name, self.geometry, checked)

    def __call__(self, *arguments: Any) -> None:
        """Check the arguments and enqueue one launch; raises KernelError if they do not fit."""
        self.bind(*arguments)()

    def __repr__(self) -> str:
        grid, block = self.geometry.grid, self.geometry.block
        return f"<launch of {self.name} of {self.file.path.name}, grid {grid}, block {block}>"


def _may_be_written(array: Any) -> None:
    """Forget what is in an array, also in the one that it is a view of."""
    while array is not None:
        if hasattr(array, "contents"):
            array.contents = None
        array = getattr(array, "base", None)
