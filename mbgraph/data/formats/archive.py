"""Arrays out of an npz file that nobody vouches for: every size is checked before memory is taken for it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph import limits
from mbgraph.errors import DataError
from mbgraph.files import open_file, reading

__all__ = ["check_unpacked", "opened_npz", "overclaims", "read_arrays"]

_RATIO = 1032  # deflate cannot make more bytes of one than this; whoever claims more lies
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_unpacked(file: Path, size: int, unpacked: int) -> None:
    """Raise `DataError` if a file of ``size`` bytes is too small for the bytes that it unpacks to."""
    allowed = limits.current()
    if unpacked <= allowed.allowed_bytes(size):
        return
    told = f"{file}: {unpacked >> 20:,} MiB unpacked from {size / 2**20:,.1f}"
    raise limits.refusal("unpacked_mib", told, (unpacked >> 20) + 1)


def overclaims(info: zipfile.ZipInfo) -> bool:
    """Return whether a member of an archive says that it unpacks to more than deflate can make of its bytes."""
    return info.file_size > _RATIO * (info.compress_size + 1)


@contextmanager
def opened_npz(file: Path, remedy: str, problem: str) -> Iterator[Any]:
    """Open an npz file of numpy's whose arrays are as large as the limits allow; it holds no objects.

    ``remedy`` and ``problem`` are those of `mbgraph.files.reading`.

    Raises
    ------
    DataError
        If it is missing, no npz file, or unpacks to more; also for whatever goes wrong in the block.
    """
    with reading(file, remedy, problem), open_file(file) as source:
        size = os.fstat(source.fileno()).st_size
        with zipfile.ZipFile(source) as archive:
            check_unpacked(file, size, sum(info.file_size for info in archive.infolist()))
        source.seek(0)
        with np.load(source, allow_pickle=False) as arrays:
            yield arrays


def read_arrays(
    file: Path, required: Sequence[str], optional: Sequence[str], length: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Read one-dimensional arrays of numbers from an npz file; members that nobody asks for are not looked at.

    Parameters
    ----------
    file : Path
    required, optional : sequence of str
        Names of arrays.
    length : int
        The length that every array must have.

    Raises
    ------
    DataError
        If the file is no npz file, truncated, encrypted, holds object arrays, lacks a required array, or its headers
        claim what the file does not hold.
    """
    problem = f"{file} is truncated or no npz file"
    with reading(file, "restore the file", problem), open_file(file) as source, zipfile.ZipFile(source) as archive:
        size = os.fstat(source.fileno()).st_size
        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in required:
            if name not in held:
                raise DataError(f"{file} holds no array {name!r}", f"it needs {', '.join(required)}")
        wanted = [name for name in (*required, *optional) if name in held]
        for name in wanted:
            _check_member(held[name], file, size)
        check_unpacked(file, size, sum(held[name].file_size for name in wanted))
        return {name: _read_array(archive, held[name], file, length) for name in wanted}


def _check_member(info: zipfile.ZipInfo, file: Path, size: int) -> None:
    what = f"{file}: {info.filename}"
    if info.flag_bits & 1:
        raise DataError(f"{what} is encrypted", "save it without a password")
    if info.compress_type not in _METHODS:
        raise DataError(f"{what} is packed by method {info.compress_type}", "save it with numpy.savez_compressed")
    if info.compress_size > size or overclaims(info):
        raise DataError(
            f"{what} claims {info.file_size} bytes out of {info.compress_size}, the file has {size}", "restore the file"
        )


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path, length: int) -> np.ndarray[Any, Any]:
    what = f"{file}: {info.filename}"
    with archive.open(info) as opened:
        member: Any = opened  # zipfile's stubs leave readinto out
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
        else:
            raise DataError(f"{what} is of npy version {version}", "save it with numpy.savez_compressed")
        if dtype.hasobject:
            raise DataError(f"{what} is an object array, which may carry code", "save it as integers")
        if dtype.kind not in "iuf":
            raise DataError(f"{what} is {dtype}, not numbers", "map original ids with: mbgraph data import")
        if len(shape) != 1:
            raise DataError(f"{what} has shape {shape}, not (N,)", "save one number per pair")
        claimed, present = int(shape[0]) * dtype.itemsize, info.file_size - member.tell()
        if claimed != present:
            raise DataError(f"{what} claims {claimed} bytes and holds {present}", "restore the file")
        if shape[0] != length:
            raise DataError(
                f"{what} holds {shape[0]} entries, meta.json says {length}", "correct the counts or restore the file"
            )
        array = np.empty(shape[0], dtype)
        target = memoryview(bytearray()) if len(array) == 0 else array.view(np.uint8).data
        filled = 0
        while filled < claimed:
            got = member.readinto(target[filled:])
            if not got:
                raise DataError(f"{what} claims {claimed} bytes and ends after {filled}", "restore the file")
            filled += got
        if member.read(1):  # also makes zipfile compare the checksum
            raise DataError(f"{what} holds more than it claims", "restore the file")
    return array
