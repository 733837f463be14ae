"""Launch the kernels of a folder of .cu files as CUDA does; the ``kernels`` fixture's object.

kernels["transpose.cu"].transpose_tiled[grid, block](src, dst, rows, cols)
kernels["transpose.cu", "-DTILE=16"].transpose_tiled[grid, block, shared_bytes, stream](...)
kernels["reduce.cu"]["reduce<float, 256>"][grid, block](...)
kernels["filter.cu"].constants["weights"] = array
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.base import Backend, Program
from pytest_gpuperf.backends.declarations import Declaration, read
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.signature import Unresolved, Variable, fitting
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
    """One .cu file with one set of compile options; its kernels are attributes, or items by C++ expressions.

    ``constants`` are its variables. An instantiation that the file does not make itself is compiled into a
    program of its own, with variables of its own.
    """

    def __init__(self, path: Path, options: tuple[str, ...], backend: Backend) -> None:
        self.path = path
        self.options = options
        self.backend = backend
        self.declarations = read(path)
        self.constants = Constants(self)
        self._program: Program | None = None
        self._instances: dict[str, Program] = {}
        self._declared: dict[str, Declaration] = {}

    @property
    def program(self) -> Program:
        """Compile the file at first use; raises KernelError with the compiler's line."""
        if self._program is None:
            self._program = self.backend.load(self.declarations, self.options)
        return self._program

    def program_of(self, name: str) -> Program:
        """Return the program that has a kernel."""
        return self._instances.get(name) or self.program

    def programs(self) -> list[Program]:
        """Return the file's program and those of its templates' instantiations."""
        return [self.program, *self._instances.values()]

    def loaded_anew(self, name: str | None) -> Program:
        """Load the program that has a kernel, or for None the file's own, once more."""
        named = name is not None and name not in self.declarations
        signature = self.program.signature(str(name)) if named else None
        own = signature if signature is not None and signature.own else None
        program = self.backend.load(self.declarations, self.options, own)
        self.constants.put_into(program)
        return program

    def _find(self, name: str) -> Declaration:
        """Return a kernel's declaration: as the text says, or where that does not, the compiler."""
        if name in self.declarations:
            return self.declarations[name]
        if name not in self._declared:
            try:
                signature = self.program.signature(name)
            except Unresolved as said:
                raise self.declarations.unknown(name, str(said)) from None
            if signature.own:
                instance = self.backend.load(self.declarations, self.options, signature)
                self.constants.put_into(instance)
                self._instances[name] = instance
            self._declared[name] = self.declarations.declared(signature)
        return self._declared[name]

    def __getitem__(self, name: str) -> Kernel:
        return Kernel(self, self._find(name))

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("__"):  # copy, pickle and inspect ask for these; no kernel has such a name
            raise AttributeError(name)
        return self[name]


class Constants:
    """The ``__constant__`` and ``__device__`` variables of a kernel file, as NumPy arrays."""

    def __init__(self, file: KernelFile) -> None:
        self._file = file
        self._put: dict[str, np.ndarray] = {}
        self.digests: dict[str, str] = {}
        """What the host has put where: part of the work that a launch does."""

    def __setitem__(self, name: str, values: Any) -> None:
        values = fitting(self._variable(name), values)
        self._put[name] = values.copy()
        self.digests[name] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        for program in self._file.programs():
            self._write(program, name)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file.program.read(self._variable(name))

    def put_into(self, program: Program) -> None:
        """Put into another program of the file what the host has put into its variables so far."""
        for name in self._put:
            self._write(program, name)

    def _write(self, program: Program, name: str) -> None:
        if (variable := program.variable(name)) is not None:
            program.write(variable, self._put[name])

    def _variable(self, name: str) -> Variable:
        try:
            found = self._file.program.variable(name)
        except Unresolved as said:
            raise KernelError(
                f"{self._file.path} has no variable {name!r} that is __constant__ or __device__: {said}."
            ) from None
        if found is None:
            raise KernelError(f"{self._file.path}: no kernel uses {name}, so the compiler has left it out.")
        return found


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
    def program(self) -> Program:
        """Return the compiled program that has the kernel."""
        return self.file.program_of(self.name)

    @property
    def code_hash(self) -> str | None:
        """Return the hash of the kernel's machine code, None if there is none."""
        return self.program.code_hash(self.name)

    def work_hash(self, *arguments: Any) -> str | None:
        """Hash all that the device is told to do: machine code, scalars, what arrays and variables hold.

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
        told: tuple[Any, ...] = (
            code,
            self.name,
            shape.grid,
            shape.block,
            shape.shared,
            scalars,
            contents,
            places,
        )
        if put := sorted(self.file.constants.digests.items()):
            told = (*told, put)
        unknown = "?" if None in contents else ""
        return BY_KERNEL + hashlib.sha256(repr(told).encode()).hexdigest()[:16] + unknown

    def bind(self, *arguments: Any) -> Callable[[], None]:
        """Check the arguments once and return the launch, which a stopwatch calls many times."""
        checked = check(self.declaration, arguments, self.backend)
        for parameter, argument in zip(self.declaration.parameters, arguments, strict=True):
            if parameter.pointer and not parameter.const:
                _may_be_written(argument)
        return self.program.prepare(self.name, self.geometry, checked)

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
