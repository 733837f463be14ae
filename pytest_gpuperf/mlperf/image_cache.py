"""Decoded images in one sparse file of the cache, each with a checksum, memory-mapped to be read.

An image's entry is a stamp of what it was made from, and a checksum of stamp and bytes, written after the
bytes. What lacks one, or has another, is made anew: a cache that a killed process left half-written, a file
that was cut off and an image that was replaced are all the same case.
"""

from __future__ import annotations

import os
import shutil
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pytest_gpuperf.cache import CACHE, cache_is_shared, cached_folder, lock_beside
from pytest_gpuperf.errors import GpuperfError

_ENTRY = np.dtype([("stamp", "<u8"), ("checksum", "<u8")])
_PAGE = 4096


class ImageCache:
    """Room for ``count`` images of ``shape``, uint8, in the file ``name`` of the cache, such as "a/b.images".

    Raises GpuperfError where the cache cannot be written.
    """

    def __init__(self, name: str, count: int, shape: tuple[int, ...]) -> None:
        self.path = cached_folder(os.path.dirname(name)) / os.path.basename(name)
        self._shape, self._size = shape, int(np.prod(shape))
        self._first = -(-count * _ENTRY.itemsize // _PAGE) * _PAGE
        whole = self._first + count * self._size
        with self._refusals():
            self._descriptor = _opened(self.path, whole)
            weakref.finalize(self, os.close, self._descriptor)
            content = np.memmap(self.path, np.uint8, "r", shape=whole)
        self._entries = content[: count * _ENTRY.itemsize].view(_ENTRY)
        self._images = content[self._first :].reshape(count, *shape)

    def lacks(self, place: int, stamp: int) -> bool:
        """Say whether nothing made from what has that stamp is there; its bytes are not looked at."""
        return int(self._entries[place]["stamp"]) != stamp

    def get(self, place: int, stamp: int) -> np.ndarray | None:
        """Return an image, None if it is not there or not whole."""
        if self.lacks(place, stamp):
            return None
        image: np.ndarray = self._images[place]
        return image if int(self._entries[place]["checksum"]) == _checksum(stamp, image) else None

    def put(self, place: int, stamp: int, image: np.ndarray) -> None:
        """Keep an image; raises GpuperfError if the disk is full. The caller holds the lock."""
        entry = np.array([(stamp, _checksum(stamp, image))], _ENTRY)
        with self._refusals():
            self._write(image.tobytes(), self._first + place * self._size)
            self._write(entry.tobytes(), place * _ENTRY.itemsize)

    def _write(self, data: bytes, offset: int) -> None:
        # Not through the map: a disk that is full would end the process by a signal there.
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    @contextmanager
    def writing(self, count: int) -> Iterator[None]:
        """Hold the file against other processes, to put ``count`` images; raises as ``require_room`` does."""
        with self._refusals():
            lock = lock_beside(self.path)
            lock.acquire()
        try:
            self.require_room(count)
            yield
        finally:
            lock.release()

    def require_room(self, count: int) -> None:
        """Raise GpuperfError unless the disk has room for so many more images."""
        with self._refusals():
            needed, free = count * self._size, shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise GpuperfError(
                f"{self.path}: {count:,} decoded images need {_size(needed)}, and the disk has {_size(free)} "
                f"free: make room, or point {CACHE} at a folder on another disk"
            )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GpuperfError(
                f"{self.path}, the cache of decoded images, cannot be written ({error.strerror}): "
                f"make room, or point {CACHE} at a folder on another disk"
            ) from error


def _opened(path: Path, size: int) -> int:
    """Open the file, made and as long as it must be; a hole reads as zeros and takes no room.

    A cache that this user can only read will do, as far as the images are there.
    """
    how = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | how, 0o600)
    except OSError:
        if not path.is_file() or path.stat().st_size != size:
            raise
        return os.open(path, os.O_RDONLY | how)
    try:
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)
            if cache_is_shared():
                os.fchmod(descriptor, 0o666)  # open's own mode is cut by the umask
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _checksum(stamp: int, image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data, stamp & 0xFFFFFFFF)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
