"""Checkpoints as arrays: what torch.save writes (zip files and older ones), pickled tables such as MANO's, and safetensors. None can run code.

`pickles.py` reads a pickle as records of what was to be made. Those that stand for arrays are on the list below and are made here, with numpy
alone; all others stay records, and are left out with a warning. torch's layouts are those of torch/serialization.py and torch/_utils.py,
numpy's of `ndarray.__reduce__`, chumpy's of chumpy/ch.py (`Ch.__getstate__`) and chumpy/reordering.py (`Select.compute_r`).
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from egoworld_ops.errors import WeightsMissing, WeightsUnreadable, unreadable
from egoworld_ops.files import pickles, safetensors
from egoworld_ops.files.pickles import Bounded, Global, Made, Reference

log = logging.getLogger(__name__)

SECTIONS = ("state_dict", "model_state_dict", "model")
"""Names under which training programs keep the network among other things."""
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Types of torch's storages, as safetensors names them."""
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
"""Types of numpy arrays that are read."""
_MOST_ELEMENTS = 1 << 26
"""Of a matrix that a file keeps sparse."""
_DEEPEST = 32
_CURE = "Get the file again; if it is as published, it is of a kind that egoworld does not read"


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name, C-contiguous and writable, as they are in the file; bfloat16 as float32, which is exact.

    Of a file that keeps the network among other things (`state_dict`, `model_state_dict`, `model`) the network alone is read. Tables within
    tables have their names joined by dots. Sparse matrices come dense; chumpy's arrays as what they stand for.

    Raises:
        WeightsMissing: there is no such file.
        WeightsUnreadable: it is cut off, damaged, of no known format, or not what it says.
        StorageUnavailable: it is there and cannot be read now.
    """
    try:
        with path.open("rb") as stream:
            return _read(path, stream)
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, NotImplementedError, *pickles.DAMAGE) as error:
        raise WeightsUnreadable(path, f"cannot be read: {error or 'it ends too early'}", _CURE) from error
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        raise WeightsMissing(path, f"is not there ({error.strerror})", "Name a readable file") from error


def _read(path: Path, stream: BinaryIO) -> dict[str, np.ndarray]:
    first = stream.read(9)
    stream.seek(0)
    if first[8:] == b"{":
        return safetensors.read(path, stream)
    if first.startswith(b"PK"):
        with zipfile.ZipFile(stream) as archive:
            said, storages = _zipped(archive)
            return _Reader(path, storages).table(said)
    said = pickles.load(stream)
    if said == _LEGACY_MAGIC:
        said, storages = _legacy(stream)
        return _Reader(path, storages).table(said)
    return _Reader(path, _outside).table(said)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Numbers that lie outside the pickle: of which type, under which key, how many."""

    kind: str
    key: str
    n: int

    @property
    def n_bytes(self) -> int:
        return self.n * np.dtype(safetensors.DTYPES[self.kind]).itemsize


_Storages = Callable[[_Stored], np.ndarray]
"""The bytes of what is stored, uint8."""


def _outside(stored: _Stored) -> np.ndarray:
    raise pickle.UnpicklingError(f"it refers to data {stored.key!r} that is in another file")


def _zipped(archive: zipfile.ZipFile) -> tuple[Any, _Storages]:
    tops = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(tops) != 1 or archive.getinfo(tops[0]).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError("a zip file, but none that torch.save writes: it has one data.pkl, not compressed")
    prefix = tops[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
        raise pickle.UnpicklingError("its numbers are big-endian")

    def storages(stored: _Stored) -> np.ndarray:
        try:
            found = archive.getinfo(f"{prefix}data/{stored.key}")
        except KeyError:
            raise pickle.UnpicklingError(f"its data {stored.key!r} is not in it") from None
        if found.compress_type != zipfile.ZIP_STORED or not stored.n_bytes == found.file_size == found.compress_size:
            raise pickle.UnpicklingError(f"its data {stored.key!r} has {found.compress_size} bytes, {stored.n_bytes} are announced")
        numbers = np.empty(stored.n_bytes, np.uint8)
        with archive.open(found) as file:
            n_read = file.readinto(numbers.data)  # type: ignore[attr-defined]
            if n_read != stored.n_bytes or file.read(1):
                raise pickle.UnpicklingError(f"its data {stored.key!r} is cut off")
        return numbers

    return pickles.load(io.BytesIO(archive.read(tops[0]))), storages


def _legacy(stream: BinaryIO) -> tuple[Any, _Storages]:
    """Of a file of torch before 1.6: pickles of protocol, system, content and keys, then each key's number of elements and bytes."""
    protocol, system = pickles.load(stream), pickles.load(stream)
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("a file of an unknown version of torch")
    references: list[Reference] = []
    said, keys = pickles.load(stream, references), pickles.load(stream)
    kept = {stored.key: stored for stored in map(_stored, references)}
    places: dict[str, int] = {}
    at = stream.tell()
    for key in keys if isinstance(keys, list) else []:
        stored = kept.get(key)
        stream.seek(at)
        if stored is None or int.from_bytes(Bounded(stream).read(8), "little") != stored.n:
            raise pickle.UnpicklingError(f"its data {key!r} is not as announced")
        places[key] = at + 8
        at += 8 + stored.n_bytes

    def storages(stored: _Stored) -> np.ndarray:
        if stored.key not in places:
            raise pickle.UnpicklingError(f"its data {stored.key!r} is not in it")
        stream.seek(places[stored.key])
        return np.frombuffer(bytearray(Bounded(stream).read(stored.n_bytes)), np.uint8)

    return said, storages


def _stored(reference: Any) -> _Stored:
    said = reference.said if isinstance(reference, Reference) else None
    match said:
        case ("storage", Global("torch", name), str(key), _, int(n), *views) if name in _STORAGES and n >= 0 and views in ([], [None]):
            return _Stored(_STORAGES[name], key, n)
    raise pickle.UnpicklingError(f"a tensor whose data is said to be {said!r}"[:200])


class _Reader:
    """Makes arrays of what a pickle says, for one file."""

    def __init__(self, path: Path, storages: _Storages) -> None:
        self._path, self._storages = path, storages
        self._read: dict[_Stored, np.ndarray] = {}

    def table(self, said: Any) -> dict[str, np.ndarray]:
        """The arrays of the network in a file's content."""
        top = _entries(said)
        if top is None:
            raise pickle.UnpicklingError("it holds no table of arrays")
        sections = [inner for name in SECTIONS if (inner := _entries(top.get(name))) is not None]
        arrays: dict[str, np.ndarray] = {}
        left_out: dict[str, str] = {}
        self._gather(sections[0] if sections else top, "", arrays, left_out)
        if not arrays:
            raise pickle.UnpicklingError("it holds no arrays")
        if left_out:
            log.warning(
                "%s: left out, since they are no arrays: %s", self._path, ", ".join(f"{k} ({v})" for k, v in left_out.items())[:2000]
            )
        return arrays

    def _gather(self, entries: Mapping[Any, Any], prefix: str, arrays: dict[str, np.ndarray], left_out: dict[str, str]) -> None:
        if prefix.count(".") > _DEEPEST:
            raise pickle.UnpicklingError(f"tables within tables, more than {_DEEPEST} deep")
        for key, value in entries.items():
            name = f"{prefix}{key}"
            if (inner := _entries(value)) is not None:
                self._gather(inner, f"{name}.", arrays, left_out)
            elif (array := self._array(value)) is not None:
                if name in arrays:
                    raise pickle.UnpicklingError(f"two arrays are called {name}")
                arrays[name] = array
            elif isinstance(value, Made):
                left_out[name] = str(value.by)

    def _array(self, said: Any) -> np.ndarray | None:
        """The array that a value stands for; None where it stands for none."""
        if not isinstance(said, Made):
            return None
        match _maker(said), said.args:
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (data, *_):
                return self._array(data)
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (storage, offset, size, stride, *_):
                return self._tensor(_stored(storage), offset, size, stride)
            case "numpy._core.multiarray._reconstruct", _:
                return _numpy_array(said.state)
            case "chumpy.ch.Ch", _:
                return self._part(said, "x")
            case "chumpy.reordering.Select", _:
                chosen = self._part(said, "a").ravel()[self._part(said, "idxs")]
                return chosen.reshape(_sizes(said.state["preferred_shape"]))
            case ("scipy.sparse.csc_matrix" | "scipy.sparse.csr_matrix") as kind, _:
                return self._dense(said, by_column=kind.endswith("csc_matrix"))
        if said.by.module.startswith("torch") and said.by.name.startswith("_rebuild"):
            raise pickle.UnpicklingError(f"a tensor of another kind: {said.by}")
        return None

    def _tensor(self, stored: _Stored, offset: Any, size: Any, stride: Any) -> np.ndarray:
        shape, strides, first = _sizes(size), _sizes(stride), _sizes((offset,))[0]
        last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        n = math.prod(shape)
        if n > stored.n or (n and last >= stored.n):
            raise pickle.UnpicklingError(f"a tensor {list(shape)} in data {stored.key!r} of {stored.n} numbers")
        if stored not in self._read:
            self._read[stored] = self._storages(stored).view(safetensors.DTYPES[stored.kind])
        flat = self._read[stored]
        steps = [step * flat.itemsize for step in strides]
        array = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat[first:], shape, steps)).reshape(shape)
        return safetensors.widened(array) if stored.kind == "BF16" else array

    def _part(self, said: Made, name: str) -> np.ndarray:
        """The array that an object keeps under that name."""
        array = self._array(said.state.get(name)) if isinstance(said.state, dict) else None
        if array is None:
            raise pickle.UnpicklingError(f"a {_maker(said)} without {name}")
        return array

    def _dense(self, said: Made, by_column: bool) -> np.ndarray:
        data, indices, indptr = (self._part(said, name) for name in ("data", "indices", "indptr"))
        shape = _sizes(said.state.get("_shape", said.state.get("shape")))
        if (
            len(shape) != 2
            or math.prod(shape) > _MOST_ELEMENTS
            or len(indptr) != shape[by_column] + 1
            or not indptr[-1] == len(data) == len(indices)
        ):
            raise pickle.UnpicklingError(f"a sparse matrix {list(shape)} whose parts do not fit")
        lines = np.repeat(np.arange(shape[by_column]), np.diff(indptr))
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (indices, lines) if by_column else (lines, indices), data)
        return dense


def _maker(said: Made) -> str:
    """What was to make it: a function or a class, also where Python 2 made it by a function; scipy's without the module, which changed."""
    by = said.args[0] if str(said.by) == "copyreg._reconstructor" and said.args and isinstance(said.args[0], Global) else said.by
    return f"scipy.sparse.{by.name}" if by.module.startswith("scipy.sparse.") else str(by)


def _entries(said: Any) -> Mapping[Any, Any] | None:
    """The entries of a table; None where it is none."""
    if isinstance(said, Made) and str(said.by) == "collections.OrderedDict":
        return said.items
    return said if isinstance(said, dict) else None


def _sizes(said: Any) -> tuple[int, ...]:
    """A shape or strides: no negative numbers."""
    numbers = said.args[0] if isinstance(said, Made) and str(said.by) == "torch.Size" and said.args else said
    if not isinstance(numbers, tuple | list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError(f"a shape that is {numbers!r}"[:200])
    return tuple(numbers)


def _numpy_array(state: Any) -> np.ndarray | None:
    """Of numpy's state: version, shape, type, whether by columns, bytes. None where its elements are no numbers."""
    match state:
        case (1, shape, Made(by=Global("numpy", "dtype"), args=(str(code), *_), state=(_, str(order), *_)), bool(by_columns), content):
            if code not in _NUMBERS:
                return None
            content = _bytes(content)
            sizes, dtype = _sizes(shape), np.dtype(f"{'>' if order == '>' else '<'}{code}")
            if isinstance(content, bytes) and len(content) == math.prod(sizes) * dtype.itemsize:
                array = np.frombuffer(bytearray(content), dtype).reshape(sizes, order="F" if by_columns else "C")
                return np.ascontiguousarray(array, dtype.newbyteorder("<")).reshape(sizes)
    raise pickle.UnpicklingError("a numpy array whose shape, type and bytes do not fit")


def _bytes(said: Any) -> Any:
    """Bytes, which Python 2 kept as text, and Python 3 keeps as text that is to be encoded where the protocol has no bytes."""
    match said:
        case Made(by=Global("_codecs", "encode"), args=(str(text), "latin1")):
            return text.encode("latin1")
        case str(text):
            return text.encode("latin1")
    return said
