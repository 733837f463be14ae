"""Show arrays and streams of the device to other libraries, by the protocols that they share."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_gpuperf.backends.geometry import stream_handle


def dlpack(address: int, array: Any) -> Any:
    """Return a view of an array's memory that speaks DLPack; raises BufferError without cuda.core."""
    try:
        from cuda.core import Buffer
        from cuda.core.utils import StridedMemoryView
    except ImportError:
        raise BufferError("DLPack needs cuda.core: pip install cuda-core.") from None
    size = np.dtype(array.dtype).itemsize
    span = size + sum((n - 1) * abs(step) for n, step in zip(array.shape, array.strides, strict=True))
    strides = tuple(step // size for step in array.strides)
    buffer = Buffer.from_handle(address, span, owner=array)
    return StridedMemoryView.from_buffer(buffer, tuple(array.shape), strides, dtype=np.dtype(array.dtype))


def speaking(stream: type[Any]) -> type[Any]:
    """Return PyCUDA's class of streams with the protocol by which others take them."""

    class Stream(stream):
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, int(self.handle)

    return Stream


def handle_of(stream: Any) -> int:
    """Return the driver's handle of a stream: a binding's, another library's or an address."""
    return int(stream_handle(stream))
