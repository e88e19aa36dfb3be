"""Tables `videos` and `clips` of good, odd and broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import validation
from egoworld_ops.errors import EgoworldError, NotAVideo, UnstableFile
from egoworld_ops.raw.walk import video_id_for
from egoworld_ops.video import manifest
from egoworld_ops.video.containers import hash_file
from egoworld_ops.video.decoding import decode, decode_clip
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.settings import SceneSettings
from tests.egoworld_ops import media


def made(path: Path, settings: SceneSettings | None = None, sha256: str | None = None) -> tuple[pa.Table, pa.Table]:
    sha256 = sha256 or hash_file(path)[0]
    videos, clips = manifest.make_manifest(path, video_id_for(path, sha256), sha256, settings or SceneSettings())
    validation.validate("videos", videos)
    validation.validate("clips", clips)
    assert videos.num_rows == 1
    return videos, clips


def test_a_video_becomes_clips_that_decode(tmp_path: Path) -> None:
    path = media.make(tmp_path / "My Video.mp4", 100, (96, 72), picture=media.scenes([40]), audio_tracks=1)
    videos, clips = made(path, SceneSettings(max_clip_s=1.0, overlap_s=0.2))
    row = videos.to_pylist()[0]
    assert row["video_id"].startswith("my-video-")
    assert (row["status"], row["n_frames"], row["fps_num"], row["fps_den"], row["audio_streams"]) == ("ok", 100, 30, 1, 1)
    assert (row["codec"], row["pix_fmt"], row["rotation_deg"], row["vfr"]) == ("h264", "yuv420p", 0, False)
    assert (row["error_class"], row["warning"]) == (None, None)
    assert set(clips["scene_index"].to_pylist()) == {0, 1}
    owned = [f for r in clips.to_pylist() for f in range(r["own_start"], r["own_end"])]
    assert owned == list(range(100))
    for clip in manifest.clips_from_tables(videos, clips):
        frames = list(decode_clip(clip))
        assert [f.index for f in frames] == list(range(clip.frame_start, clip.frame_end))
        assert frames[0].timestamp_s == clip.start_s
        assert frames[0].rgb.shape == (clip.height, clip.width, 3)
        assert clip.end_s == pytest.approx(clip.frame_end / 30)


def test_the_same_file_gives_the_same_tables(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 60, (96, 72), picture=media.scenes([30]))
    first, second = made(path), made(path)
    assert first[0].equals(second[0])
    assert first[1].equals(second[1])


def test_the_corrupt_file_is_kept_up_to_its_fault(shared_data: Path) -> None:
    videos, clips = made(shared_data / "decord_corrupted.mp4")
    row = videos.to_pylist()[0]
    assert (row["status"], row["n_frames"]) == ("ok", 28)
    assert "28 of the 50 frames" in row["warning"]
    clip = manifest.clips_from_tables(videos, clips)[-1]
    assert clip.frame_end == 28
    assert len(list(decode(clip.video_path, 0, 28))) == 28


def test_a_file_that_is_no_video_is_a_rejected_row(tmp_path: Path) -> None:
    audio = media.make_audio(tmp_path / "audio.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    for path, error_class in ((audio, "NoVideoStream"), (text, "NotAVideo")):
        videos, clips = made(path)
        row = videos.to_pylist()[0]
        assert (row["status"], row["error_class"], row["bytes"]) == ("rejected", error_class, path.stat().st_size)
        assert row["reason"]
        assert row["cure"]
        assert row["n_frames"] is None
        assert clips.num_rows == 0


@pytest.mark.parametrize(
    ("kind", "error_class", "reason"),
    [
        ("missing", NotAVideo, "does not exist"),
        ("dangling", NotAVideo, "is a link to nothing"),
        ("loop", NotAVideo, "cannot be opened"),
        ("folder", NotAVideo, "is a directory"),
        ("not utf-8", NotAVideo, "not valid UTF-8"),
        ("other content", UnstableFile, "holds other content"),
    ],
)
def test_a_file_that_is_not_what_was_registered_is_an_error_and_no_row(
    tmp_path: Path, kind: str, error_class: type[EgoworldError], reason: str
) -> None:
    path = tmp_path / {"not utf-8": "caf\udce9.mp4"}.get(kind, "a.mp4")
    if kind == "folder":
        path.mkdir()
    elif kind in ("dangling", "loop"):
        path.symlink_to(path if kind == "loop" else tmp_path / "nowhere")
    elif kind != "missing":
        media.make(tmp_path / "plain.mp4", 3).rename(path)
    with pytest.raises(error_class, match=reason):
        made(path, sha256="0" * 64)


@pytest.mark.parametrize("content", ["a video", "text"])
@pytest.mark.parametrize("change", ["grow", "replace", "unlink"])
@pytest.mark.parametrize("when", ["hashed", "decoded"])
def test_a_file_that_changes_meanwhile_is_an_error_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, change: str, when: str
) -> None:
    path = media.make(tmp_path / "a.mkv", 20)
    if content == "text":
        path.write_text("hello")
    sha256 = hash_file(path)[0]
    hashed, probed = manifest.hash_file, manifest.probe

    def spoil() -> None:
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "replace":
            (tmp_path / "other").write_bytes(path.read_bytes())
            (tmp_path / "other").rename(path)
        else:
            path.unlink()

    def hash_then_spoil(path: Path) -> tuple[str, int]:
        result = hashed(path)
        spoil()
        return result

    def probe_then_spoil(
        path: Path, scores: manifest.SceneScores, threads: int, as_pinhole: bool, index: IndexMaker | None
    ) -> manifest.VideoProbe:
        try:
            return probed(path, scores, threads, as_pinhole, index)
        finally:
            spoil()

    monkeypatch.setattr(manifest, *(("hash_file", hash_then_spoil) if when == "hashed" else ("probe", probe_then_spoil)))
    with pytest.raises(UnstableFile, match=r"changed while|went away"):
        made(path, sha256=sha256)


def test_clips_know_that_their_video_is_damaged(tmp_path: Path, shared_data: Path) -> None:
    for path, damaged in ((shared_data / "decord_corrupted.mp4", True), (media.make(tmp_path / "a.mp4", 10), False)):
        assert {clip.damaged for clip in manifest.clips_from_tables(*made(path))} == {damaged}
        for clip in manifest.clips_from_tables(*made(path)):
            assert type(clip).from_json(clip.to_json()) == clip


def test_splits_are_by_content_and_near_80_10_10() -> None:
    rng = np.random.default_rng(1)
    splits = [manifest.split_of(rng.bytes(32).hex()) for _ in range(5000)]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert shares["train"] == pytest.approx(0.8, abs=0.02)
    assert shares["val"] == pytest.approx(0.1, abs=0.02)
    assert shares["test"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_broken_files_keep_the_contract(tmp_path: Path, name: str) -> None:
    content = media.make(tmp_path / name, 40, (64, 48), picture=media.scenes([20])).read_bytes()
    path = tmp_path / f"broken_{name}"
    rng = np.random.default_rng(3)
    for _ in range(40):
        broken = bytearray(content)
        for where in rng.integers(0, len(broken), 12):
            broken[where] = rng.integers(0, 256)
        path.write_bytes(broken[: int(rng.integers(len(broken) // 2, len(broken)))])
        try:
            videos, clips = made(path)
        except EgoworldError as error:
            raise AssertionError(f"a bad file is a row, not {error!r}") from error
        for clip in manifest.clips_from_tables(videos, clips):
            frames = list(decode_clip(clip))
            assert len(frames) == clip.n_frames
