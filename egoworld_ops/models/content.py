"""Whether a file whose SHA-256 nobody publishes can be what it is called, before it is pinned: afterwards no other file is taken for it."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable
from egoworld_ops.files import safetensors
from egoworld_ops.models.entries import Weight

_TEXT_BYTES = 64 * 1024 * 1024
_GRAPH, _OUTPUT = 7, 12
"""Fields of ONNX: the network in ModelProto, and a result of it in GraphProto (onnx.proto)."""
_VARINT, _BYTES = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
"""Kinds of protobuf's fields, the last ones with their size."""


def check(wanted: Weight, file: Path, arrays: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Compare a file with what its entry says that it holds: arrays of safetensors or of a checkpoint, by name and shape; names in an ONNX file, and
    how many results its network has; how large it is; keys of a JSON file, and its `model_type`; the first word of another text.

    Args:
        wanted: the entry; nothing is checked where it says nothing.
        file: what came.
        arrays: shapes of a checkpoint's, which were read already.

    Raises:
        WeightsMismatch: it is another file.
        WeightsUnreadable: it is no safetensors file.
    """
    if not wanted.holds:
        return
    kind, cure = Path(wanted.filename).suffix, f"Get {wanted.filename} from {wanted.whence}"
    if wanted.sizes and not wanted.sizes[0] <= (size := file.stat().st_size) <= wanted.sizes[1]:
        least, most = (n / 1e6 for n in wanted.sizes)
        raise WeightsMismatch(
            wanted.filename, f"what came is not {wanted.name}: it has {size / 1e6:.0f} MB, that has {least:.0f} to {most:.0f}", cure
        )
    if arrays is not None or kind == ".safetensors":
        lacks = _lacks_of_arrays(wanted, _shapes(wanted, file, cure) if arrays is None else arrays)
    elif kind == ".onnx":
        lacks = _lacks_of_onnx(wanted, file)
    else:
        lacks = _lacks_of_text(wanted, file, kind == ".json")
    if lacks:
        raise WeightsMismatch(wanted.filename, f"what came is not {wanted.name}: it has no {', '.join(lacks)}", cure)


def _shapes(wanted: Weight, file: Path, cure: str) -> Mapping[str, tuple[int, ...]]:
    try:
        return safetensors.shapes(file)
    except WeightsUnreadable as error:
        raise WeightsUnreadable(wanted.filename, f"what came is {error.reason}", cure) from error


def _lacks_of_arrays(wanted: Weight, found: Mapping[str, tuple[int, ...]]) -> list[str]:
    right = {name for name, shape in wanted.holds.items() if name in found and shape in (None, found[name])}
    return [f"{name} {list(wanted.holds[name] or ())}" for name in wanted.holds if name not in right]


def _lacks_of_text(wanted: Weight, file: Path, is_json: bool) -> list[str]:
    if file.stat().st_size > _TEXT_BYTES:
        return ["end: it is too large"]
    try:
        text = file.read_text("utf-8")
        said = json.loads(text) if is_json else text.split()[:1]
    except (ValueError, RecursionError):
        return ["text of that kind"]
    if wanted.model_type and isinstance(said, dict) and said.get("model_type") != wanted.model_type:
        return [f"model_type {wanted.model_type}"]
    return [name for name in wanted.holds if not isinstance(said, dict | list) or name not in said]


def _lacks_of_onnx(wanted: Weight, file: Path) -> list[str]:
    with file.open("rb") as stream:
        if not stream.seek(0, 2):
            return ["network of ONNX"]
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as held:
            try:
                graph = next((where for number, where in list(_fields(held, range(len(held)))) if number == _GRAPH), None)
                outputs = None if graph is None else sum(number == _OUTPUT for number, _ in _fields(held, graph))
            except (IndexError, ValueError):
                outputs = None
            if outputs is None:
                return ["network of ONNX"]
            lacks = [name for name in wanted.holds if name and held.find(name.encode()) < 0]
            return lacks if wanted.outputs in (None, outputs) else [*lacks, f"network of {wanted.outputs} output(s), but one of {outputs}"]


def _fields(held: mmap.mmap, message: range) -> Iterator[tuple[int, range]]:
    """The fields of a message of protobuf: the number of each, and where its bytes lie.

    Raises:
        IndexError, ValueError: it is no message to its end: a cut or foreign file.
    """
    at = message.start
    while at < message.stop:
        tag, at = _number(held, at)
        kind, begin = tag & 7, at
        if kind == _VARINT:
            _, at = _number(held, at)
        elif kind == _BYTES:
            size, begin = _number(held, at)
            at = begin + size
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise ValueError(f"there is no kind {kind} of fields")
        yield tag >> 3, range(begin, at)
    if at != message.stop:
        raise ValueError("the last field ends behind the message")


def _number(held: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of protobuf, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = held[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80 or shift > 63:
            return value, at
