"""The one door through which pickles come in. Nothing that a pickle names is ever called, or even imported.

A pickle is a program, and reading it runs it. Here it runs among stand-ins. Before that its operations are listed, and
those outside a short list are refused, and so are sizes that the file does not hold. The few names that numpy's arrays
and SciPy's sparse matrices need lead to the inert classes below, which keep what they are given and do nothing; any
other name is refused. `mbgraph.data.formats.matrices` makes arrays of what was kept and checks every index.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph import limits
from mbgraph.errors import DataError
from mbgraph.files import read_whole, reading

__all__ = ["Array", "Sparse", "Unusable", "load", "reading_pickle"]

_MAX_ENTRIES = 10_000  # of dictionaries; matrices have a handful, and keys can be chosen so that they collide
_MAX_SHARED = 20  # tuples used twice: they could nest into one that takes for ever to hash
_REMEDY = "convert the file, where you trust it, to arrays and SciPy matrices alone"
_NUMBERS = re.compile(r"[iuf][1248]|b1")
_OPERATIONS = """
PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ
"""
_ALLOWED = frozenset(_OPERATIONS.split())
_TO_MARK = frozenset(["POP_MARK", "LIST", "APPENDS", "TUPLE", "DICT", "SETITEMS"])


class Unusable(ValueError):
    """A pickle of something else than arrays."""


class Dtype:
    """Stands for ``numpy.dtype``: keeps the type code and the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, align: Any = False, copy: Any = True) -> None:
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise Unusable("an array of records")
        self.order = str(state[1])

    def real(self) -> np.dtype[Any] | None:
        """Return the type, None for objects; anything but numbers and objects is refused."""
        if self.code in ("O", "O8", "O4"):
            return None
        if not _NUMBERS.fullmatch(self.code) or self.order not in ("<", ">", "|", "="):
            raise Unusable(f"an array of type {self.order[:1]}{self.code[:8]}")
        return np.dtype(self.order + self.code)


class Array:
    """Stands for ``numpy.ndarray``: keeps shape, type and content."""

    __slots__ = ("content", "dtype", "shape")

    def __init__(self) -> None:
        self.shape: Any = None
        self.dtype: Any = None
        self.content: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.shape, self.dtype, _, self.content = state[-4:]

    def real(self) -> np.ndarray[Any, Any] | list[Any]:
        """Return a one-dimensional array of numbers, or the list that an array of objects holds."""
        if not (isinstance(self.shape, tuple) and len(self.shape) == 1 and isinstance(self.dtype, Dtype)):
            raise Unusable("an array that is not one-dimensional")
        length, dtype, content = self.shape[0], self.dtype.real(), self.content
        if dtype is None:
            if type(content) is not list or len(content) != length:
                raise Unusable("an array of objects whose length is not its shape")
            return content
        if isinstance(content, str):
            content = content.encode("latin1")  # Python 2 wrote bytes as text
        if not isinstance(content, bytes | bytearray) or type(length) is not int or length < 0:
            raise Unusable("an array without content")
        if len(content) != length * dtype.itemsize:
            raise Unusable(f"an array of {length} numbers in {len(content)} bytes")
        return np.frombuffer(bytes(content), dtype)


class Sparse:
    """Stands for a sparse matrix of SciPy: keeps its attributes."""

    __slots__ = ("state",)
    layout = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        if type(state) is not dict:
            raise Unusable("a sparse matrix without attributes")
        self.state = state


class _Csr(Sparse):
    __slots__ = ()
    layout = "csr"


class _Csc(Sparse):
    __slots__ = ()
    layout = "csc"


class _Coo(Sparse):
    __slots__ = ()
    layout = "coo"


class _Object:
    """Stands for ``object``, an argument of `_rebuild`."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Unusable("a plain object with attributes")


class _Call:
    """Stands for a function. Unlike one, it has no attributes that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Unusable("a function with attributes")


def _array(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _array_of(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.__setstate__((shape, dtype, False, content))
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    if isinstance(content, Array | Sparse) or not isinstance(dtype, Dtype) or dtype.real() is None:
        raise Unusable("a scalar that is no number")
    return _array_of(content, dtype, (1,), "C").real()[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise Unusable("text in an encoding other than latin1")
    return str.encode(text, "latin1")


def _no_bytes() -> bytes:
    return b""


def _rebuild(kind: Any, base: Any, state: Any) -> Sparse:
    if not (isinstance(kind, type) and issubclass(kind, Sparse)) or base is not _Object or state is not None:
        raise Unusable("an object that is no sparse matrix")
    return kind()


def _stand_ins() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): _Call(_encode),
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _Call(_array)
        names[f"{core}.multiarray", "scalar"] = _Call(_scalar)
        names[f"{core}.numeric", "_frombuffer"] = _Call(_array_of)
    for layout, kind in (("csr", _Csr), ("csc", _Csc), ("coo", _Coo)):
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}", "scipy.sparse._arrays", "scipy.sparse"):
            names[module, f"{layout}_matrix"] = names[module, f"{layout}_array"] = kind
    for module in ("copyreg", "copy_reg"):  # Python 3 and 2
        names[module, "_reconstructor"] = _Call(_rebuild)
    for module in ("builtins", "__builtin__"):
        names[module, "object"] = _Object
        names[module, "bytes"] = _Call(_no_bytes)  # how protocols 0 to 2 write an empty array
    return names


_STAND_INS = _stand_ins()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Path, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name; every name without one is refused."""
        try:
            return _STAND_INS[module, name]
        except (KeyError, TypeError) as error:
            wanted = f"{module}.{name}"[:80]
            raise DataError(
                f"{self._file} names {wanted!r}, which is no array or sparse matrix and may be code", _REMEDY
            ) from error


def load(file: Path) -> Any:
    """Read a pickle of arrays, sparse matrices, numbers, text, lists, tuples and dictionaries.

    Parameters
    ----------
    file : Path

    Returns
    -------
    object
        Arrays as `Array`, SciPy's matrices as `Sparse`, everything else as itself.

    Raises
    ------
    DataError
        If the file is missing, truncated, no pickle, beyond the limits, or names anything else, such as a
        function; the message says what.
    """
    content = read_whole(file)
    if not content:
        raise DataError(f"{file} is empty", "restore the file")
    with reading_pickle(file):
        _check_operations(file, content)
        return _Unpickler(file, content).load()


def reading_pickle(file: Path) -> AbstractContextManager[None]:
    """Return the block in which whatever is no pickle of arrays becomes one line; see `mbgraph.files.reading`."""
    return reading(file, "restore the file", f"{file} is truncated or no pickle of arrays")


def _check_operations(file: Path, content: bytes) -> None:
    """Refuse operations that no array needs, and those that take time or memory without end."""
    shared = memo = entries = 0
    most = limits.current().objects
    marks: list[int] = []
    before = ""
    tuples: set[int] = set()
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        name, place = operation.name, argument if type(argument) is int else memo
        if name not in _ALLOWED:
            raise DataError(f"{file} uses the pickle operation {name}, which arrays have no need of", _REMEDY)
        if count >= most:
            raise limits.refusal("objects", f"{file}: {count:,} values and more")
        if name == "MARK":
            marks.append(count)
        elif name in _TO_MARK and marks:
            begun = marks.pop()
            entries += (count - begun) // 2 if name in ("DICT", "SETITEMS") else 0
        elif name == "SETITEM":
            entries += 1
        if entries > _MAX_ENTRIES:
            raise DataError(f"{file} holds dictionaries of more than {_MAX_ENTRIES:,} entries", _REMEDY)
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if place > count:  # the unpickler would make room for all places before it
                raise Unusable(f"place {place} after {count} operations")
            memo += 1
            if before.startswith("TUPLE"):
                tuples.add(place)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            shared += place in tuples
            if shared > _MAX_SHARED:
                raise Unusable("tuples inside tuples without end")
        before = name
