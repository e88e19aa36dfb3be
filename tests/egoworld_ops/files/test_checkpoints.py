"""Checkpoints are read as arrays, equal to what torch and numpy wrote; what is planted in them stays a record."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from egoworld_ops.errors import WeightsMissing, WeightsUnreadable
from egoworld_ops.files import safetensors
from egoworld_ops.files.checkpoints import read_checkpoint

torch.manual_seed(0)
BASE = torch.arange(24.0).reshape(4, 6)
TENSORS = {
    "whole": BASE,
    "part": BASE[1:3, ::2],
    "turned": BASE.T,
    "scalar": torch.tensor(3, dtype=torch.int64),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
    "half": torch.randn(3, 2).half(),
    "brain": torch.randn(3, 2).bfloat16(),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "parameter": torch.nn.Parameter(torch.randn(2, 3)),
}
LAYOUTS = [True, False]
"""torch's zip file, and the older one."""


class Planted:
    """Unpickled by pickle.load, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self._mark}",)


def saved(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: dict[str, np.ndarray], wanted: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        want = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        assert found[name].shape == want.shape, name
        assert torch.equal(torch.from_numpy(found[name]), want), name
        assert found[name].flags.c_contiguous, name
        assert found[name].flags.writeable, name


@pytest.mark.parametrize("zipped", LAYOUTS)
@pytest.mark.parametrize(
    "wrap", [dict, OrderedDict, lambda t: {"epoch": 3, "state_dict": OrderedDict(t), "optimizer_states": [{"lr": 1e-3}]}]
)
def test_torch_files_of_both_layouts_are_read_as_torch_reads_them(tmp_path: Path, wrap: Callable[[Any], Any], zipped: bool) -> None:
    same(read_checkpoint(saved(tmp_path / "a.pt", wrap(TENSORS), zipped)), TENSORS)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_planted_code_stays_inert_and_the_weights_are_read(tmp_path: Path, zipped: bool, caplog: pytest.LogCaptureFixture) -> None:
    mark = tmp_path / "mark"
    content = {"state_dict": {"w": BASE, "trap": Planted(mark)}, "hyper_parameters": Planted(mark), "callbacks": [{"x": Planted(mark)}]}
    path = saved(tmp_path / "a.ckpt", content, zipped)
    assert np.array_equal(read_checkpoint(path)["w"], BASE)
    assert not mark.exists()
    assert "trap (posix.system)" in caplog.text
    torch.load(path, weights_only=False)
    assert mark.exists(), "the trap was none"


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(V touch {mark}\ntR.",
        b"(V touch {mark}\niposix\nsystem\n.",
        b"(cposix\nsystem\nV touch {mark}\no.",
        b"c__builtin__\neval\n(V__import__('os').system('touch {mark}')\ntR.",
        b"c__builtin__\ngetattr\n(cos\nsystem\nV__call__\ntR(V touch {mark}\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0a touch {x}\x85R.",
        b"c__main__\nX\nN(dV__setstate__\ncposix\nsystem\nsbVtouch {mark}\nb.",
        b"ccollections\nOrderedDict\n(tR(Va\ncposix\nsystem\n(V touch {mark}\ntRs.",
    ],
)
def test_hand_made_programs_do_nothing(tmp_path: Path, program: bytes) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "a.pkl"
    path.write_bytes(program.replace(b"{mark}", str(mark).encode()))
    with pytest.raises(WeightsUnreadable):
        read_checkpoint(path)
    assert not mark.exists()


def tensor_of(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, announced: int = 24) -> bytes:
    """A zip file of torch with 24 numbers, and a tensor that says this of them."""
    stored = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + plain(announced) + b"tQ"
    program = b"}Vw\nctorch._utils\n_rebuild_tensor_v2\n(" + stored + plain(offset) + plain(size) + plain(stride) + b"I00\nNtRs."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", np.arange(24, dtype="<f4").tobytes())
    return out.getvalue()


def plain(value: Any) -> bytes:
    """The part of a program that makes a number or a tuple of numbers."""
    return b"(" + b"".join(map(plain, value)) + b"t" if isinstance(value, tuple) else f"L{value}L\n".encode()


def test_a_tensor_lies_within_its_data(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(tensor_of((4, 6), (6, 1)))
    assert np.array_equal(read_checkpoint(path)["w"], BASE)
    for wrong in [
        tensor_of((4, 6), (6, 1), offset=1),
        tensor_of((4, 6), (6, 1), offset=-1),
        tensor_of((4, 6), (6, 2)),
        tensor_of((10**6, 10**6), (0, 0)),
        tensor_of((-4, -6), (6, 1)),
        tensor_of((4, 6), (6, 1, 1)),
        tensor_of((4, 6), (6, 1), announced=10**12),
        tensor_of((4, 6), (6, 1), announced=-1),
    ]:
        path.write_bytes(wrong)
        with pytest.raises(WeightsUnreadable):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"\x01.",
        b"\x80\x02Nr" + struct.pack("<I", (1 << 32) - 1) + b".",
        b"(" * 10_000 + b".",
        b"]" + b"\x85" * 10_000 + b".",
    ],
)
def test_huge_sizes_are_refused_before_anything_is_allocated(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(program)
    with pytest.raises(WeightsUnreadable):
        read_checkpoint(path)


def test_tables_that_hold_themselves_end(tmp_path: Path) -> None:
    table: dict[str, Any] = {"w": np.eye(2)}
    table["again"] = table
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(table, 2))
    with pytest.raises(WeightsUnreadable, match="deep"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "a.pt", TENSORS, zipped)
    content = path.read_bytes()
    for end in range(0, len(content) - 1, max(len(content) // 60, 1)):
        path.write_bytes(content[:end])
        with pytest.raises(WeightsUnreadable):
            read_checkpoint(path)


def test_a_flipped_bit_in_the_weights_of_a_zip_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": BASE})
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 23.0))] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsUnreadable, match="CRC"):
        read_checkpoint(path)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{"]))
def test_any_bytes_end_in_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes, first: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(first + content)
    with pytest.raises(WeightsUnreadable):
        read_checkpoint(path)


def test_no_file_and_other_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(WeightsUnreadable, match="sparse"):
        read_checkpoint(saved(tmp_path / "a.pt", {"w": BASE.to_sparse()}))


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Classes named as chumpy's, with the state that they keep."""
    classes = []
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        made = types.ModuleType(module)
        kind = type(name, (), {"__module__": module})
        setattr(made, name, kind)
        monkeypatch.setitem(sys.modules, module, made)
        classes.append(kind)
    return classes[0], classes[1]


def with_state(kind: type, **state: Any) -> Any:
    thing = kind.__new__(kind)
    thing.__dict__.update(state)
    return thing


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_mano_like_pickles_come_as_arrays(tmp_path: Path, chumpy: tuple[type, type], protocol: int) -> None:
    rng = np.random.default_rng(3)
    ch, select = chumpy
    directions = rng.normal(size=(778 * 3 * 20,))
    idxs = np.arange(directions.size).reshape(-1, 20)[:, :10].ravel()
    regressor = scipy.sparse.random(16, 778, 0.02, "csc", rng=rng)
    content = {
        "v_template": rng.normal(size=(778, 3)),
        "shapedirs": with_state(select, a=with_state(ch, x=directions), idxs=idxs, preferred_shape=(778, 3, 10)),
        "posedirs": np.asfortranarray(rng.normal(size=(778, 3, 5))),
        "J_regressor": regressor,
        "J_by_row": regressor.tocsr(),
        "kintree_table": np.arange(32, dtype=">i8").reshape(2, 16),
        "bs_type": "lrotmin",
        "hands_coeffs": [],
    }
    path = tmp_path / "MANO.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_checkpoint(path)
    assert set(found) == set(content) - {"bs_type", "hands_coeffs"}
    assert np.array_equal(found["shapedirs"], directions[idxs].reshape(778, 3, 10))
    assert np.array_equal(found["J_regressor"], regressor.toarray())
    assert np.array_equal(found["J_by_row"], regressor.toarray())
    for name in ("v_template", "posedirs", "kintree_table"):
        assert np.array_equal(found[name], content[name])


def test_parts_of_matrices_and_selections_must_fit(tmp_path: Path, chumpy: tuple[type, type]) -> None:
    path = tmp_path / "a.pkl"
    for wrong in (
        {"indices": np.int32([9])},
        {"indptr": np.int32([0, -1, 1])},
        {"data": np.zeros(3)},
        {"data": np.ones(3), "indices": np.int32([0, 1, 0])},
        {"_shape": (1 << 40, 1 << 40)},
    ):
        sparse = scipy.sparse.csc_matrix(np.float64([[0, 1], [0, 0]]))
        sparse.__dict__.update(wrong)
        path.write_bytes(pickle.dumps({"w": sparse}, 2))
        with pytest.raises(WeightsUnreadable):
            read_checkpoint(path)
    ch, select = chumpy
    path.write_bytes(pickle.dumps({"w": with_state(select, a=with_state(ch, x=np.zeros(3)), idxs=np.int32([3]), preferred_shape=(1,))}, 2))
    with pytest.raises(WeightsUnreadable):
        read_checkpoint(path)


def test_safetensors_come_back_as_they_were_and_say_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"b": np.float32([[1, 2], [3, 4]]), "a": np.zeros((0, 3), np.int64), "c": np.array(True), "h": np.float16([7])}
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"".join(safetensors.chunks(arrays, {"from": "test"})))
    found = read_checkpoint(path)
    assert {name: (a.dtype, a.shape, a.tolist()) for name, a in found.items()} == {
        n: (a.dtype, a.shape, a.tolist()) for n, a in arrays.items()
    }
    assert b"".join(safetensors.chunks(dict(reversed(arrays.items())), {"from": "test"})) == path.read_bytes()
    content = path.read_bytes()
    for wrong in (content[:-1], content + b"x", content.replace(b"[2,2]", b"[2,3]"), content.replace(b'"F32"', b'"Q32"'), content[:40]):
        path.write_bytes(wrong)
        with pytest.raises(WeightsUnreadable):
            read_checkpoint(path)
