"""The registry of weights: fetched files are checked, wrong ones refused, and no half-written file stays."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from egoworld_ops import models
from egoworld_ops.errors import BadSettings, StorageUnavailable, WeightsMismatch, WeightsMissing

CONTENT = b"weights of a tiny network"


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(folder))
    return folder


def tiny(url: str = "http://127.0.0.1:9/tiny.bin", content: bytes = CONTENT) -> models.Weight:
    return models.Weight("tiny", "tiny.bin", hashlib.sha256(content).hexdigest(), len(content), "MIT", models.Download(url))


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[str]:
    """A publisher's web server with tiny.bin on it."""
    root = tmp_path / "published"
    root.mkdir()
    (root / "tiny.bin").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_entry_has_a_digest_a_size_a_licence_and_its_own_file() -> None:
    for name, entry in models.REGISTRY.items():
        assert entry.name == name
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.bytes > 1e6
        assert entry.licence == "Apache-2.0"
    assert len({w.filename for w in models.REGISTRY.values()}) == len({w.sha256 for w in models.REGISTRY.values()}) == len(models.REGISTRY)
    assert all(n in models.REGISTRY for names in models.GROUPS.values() for n in names)


def test_installed_weights_match_size_and_digest() -> None:
    for name in models.GROUPS["mediapipe-hands"]:
        found = models.path(name)
        assert found.stat().st_size == models.weight(name).bytes
        assert hashlib.sha256(found.read_bytes()).hexdigest() == models.sha256(name)


def test_missing_weights_name_the_command_that_fetches_them(weights_folder: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"egoworld models fetch palm_detection_full") as caught:
        models.path("palm_detection_full")
    assert caught.value.culprit == str(weights_folder / "palm_detection_full.tflite")


def test_changed_weights_are_refused_also_after_they_were_right(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    weights_folder.mkdir()
    (weights_folder / "tiny.bin").write_bytes(CONTENT)
    assert models.path("tiny") == weights_folder / "tiny.bin"
    (weights_folder / "tiny.bin").write_bytes(CONTENT.upper() + b"!")
    with pytest.raises(WeightsMismatch, match="SHA-256"):
        models.path("tiny")


def test_download_replaces_wrong_weights(weights_folder: Path, publisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher}/tiny.bin"))
    weights_folder.mkdir()
    (weights_folder / "tiny.bin").write_bytes(b"half a file")
    assert models.fetch(["tiny"]) == [weights_folder / "tiny.bin"]
    assert (weights_folder / "tiny.bin").read_bytes() == CONTENT
    assert [p.name for p in weights_folder.iterdir()] == ["tiny.bin"]


def test_download_of_another_content_leaves_nothing(weights_folder: Path, publisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher}/tiny.bin", b"what was promised"))
    with pytest.raises(WeightsMismatch):
        models.fetch(["tiny"])
    assert list(weights_folder.iterdir()) == []


def test_publisher_that_does_not_answer_is_worth_a_retry(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    with pytest.raises(StorageUnavailable, match="register tiny FILE") as caught:
        models.fetch(["tiny"])
    assert caught.value.retryable


def test_register_takes_the_right_file_and_refuses_another(weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(CONTENT)
    wrong.write_bytes(b"something else")
    with pytest.raises(WeightsMismatch, match="SHA-256"):
        models.register("tiny", wrong)
    with pytest.raises(WeightsMissing):
        models.register("tiny", tmp_path / "nowhere")
    assert models.register("tiny", right) == weights_folder / "tiny.bin"
    assert models.path("tiny").read_bytes() == CONTENT
    assert [p.name for p in weights_folder.iterdir()] == ["tiny.bin"]


def test_unknown_names_are_refused(weights_folder: Path) -> None:
    with pytest.raises(BadSettings, match="mediapipe-hands"):
        models.weight("nonsense")
    with pytest.raises(BadSettings, match="nonsense"):
        models.fetch(["nonsense"])


def test_list_says_what_is_here(weights_folder: Path) -> None:
    lines = list(models.listed())
    assert any(line.startswith("sam2.1_hiera_tiny ") and "dl.fbaipublicfiles.com" in line and " here " not in line for line in lines)


def test_fetched_wheel_members_are_the_registered_files(weights_folder: Path) -> None:
    """Asks the package index, as `make demo` does on a fresh machine; skips where there is none."""
    try:
        fetched = models.fetch(["mediapipe-hands"])
    except StorageUnavailable as error:
        pytest.skip(f"no package index: {error.reason}")
    assert [p.name for p in fetched] == [models.weight(n).filename for n in models.GROUPS["mediapipe-hands"]]
