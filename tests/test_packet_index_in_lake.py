"""The packet index in the lake: made with the manifest, handed to every clip, linked with results, and not needed where it is missing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.clips import clips_of
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import digest_at
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register as raw_folder
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.types import Camera, Clip
from egoworld_ops.upkeep.verify_video import check_video
from egoworld_ops.video import index_file
from egoworld_ops.video.decoding import decode_clip
from egoworld_ops.video.sidecar import Sidecar
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media

CUT, FRAMES = 24, 48


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path / "raw"})


@pytest.fixture
def video_id(settings: Settings) -> str:
    settings.raw.mkdir()
    path = media.make(settings.raw / "a.mkv", FRAMES, size=(160, 120), picture=media.scenes([CUT]))
    [video_id] = raw_folder.register(settings.lake, [path]).video_ids
    return video_id


def make_manifest(settings: Settings, video_id: str, anew: bool = False) -> Run:
    run = configuration.open_run(settings)
    for result in pipeline.manifest_results(run, [video_id], settings, pipeline.Part(anew=anew)):
        pipeline.store(run, pipeline.MANIFEST, result)
    return run


def frames_of(clip: Clip) -> list[tuple[int, float, bytes]]:
    return [(f.index, f.timestamp_s, f.rgb.tobytes()) for f in decode_clip(clip)]


def test_the_manifest_makes_it_and_clips_are_read_by_it(settings: Settings, video_id: str, caplog: pytest.LogCaptureFixture) -> None:
    run = make_manifest(settings, video_id)
    index = run.packet_index(video_id)
    written = [path.stat().st_mtime_ns for path in (index, run.video_table("clips", video_id), run.video_table("videos", video_id))]
    assert written == sorted(written), "what completes the manifest is written last"
    assert index_file.fault(index) is None
    clips = clips_of(run, video_id)
    assert {clip.packet_index for clip in clips} == {index}
    last = clips[-1]
    by_index = frames_of(last)
    assert [f[0] for f in by_index] == list(range(CUT, FRAMES))
    assert not caplog.records
    index.unlink()
    assert frames_of(last) == by_index
    assert "decoded from its start" in caplog.text


def test_a_task_takes_it_to_the_worker(settings: Settings, video_id: str) -> None:
    run = make_manifest(settings, video_id)
    clip = clips_of(run, video_id)[0]
    camera = Camera(100.0, 100.0, 80.0, 60.0, 160, 120, "file")
    task = ClipTask("k", "detections", "mediapipe", {}, clip, {}, camera, Sidecar(), 1, weights=settings.lake)
    assert ClipTask.from_json(task.to_json()).clip.packet_index == run.packet_index(video_id).absolute()


def test_results_are_the_same_with_it_and_without(settings: Settings, video_id: str) -> None:
    run, pool = make_manifest(settings, video_id), InlinePool(threads=2)
    tables = []
    for _ in range(2):
        results = list(pipeline.results(run, "detections", [video_id], settings, pool, pipeline.Part(anew=True)))
        tables.append([(r.clip_id, r.digest, r.tables["detections"].to_pylist()) for r in results])
        run.packet_index(video_id).unlink(missing_ok=True)
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]


def test_another_run_links_it_with_the_manifest(settings: Settings, video_id: str) -> None:
    first = make_manifest(settings, video_id)
    second = make_manifest(settings.model_copy(update={"sample_stride": 3}), video_id)
    assert first != second
    assert os.path.samefile(first.packet_index(video_id), second.packet_index(video_id))


def test_a_lake_made_before_gets_it_by_a_manifest_made_anew(settings: Settings, video_id: str) -> None:
    run = make_manifest(settings, video_id)
    content, digest = run.packet_index(video_id).read_bytes(), digest_at(run.video_table("videos", video_id))
    run.packet_index(video_id).unlink()
    make_manifest(settings, video_id, anew=True)
    assert run.packet_index(video_id).read_bytes() == content
    assert digest_at(run.video_table("videos", video_id)) == digest


def test_a_video_that_is_damaged_now_keeps_no_older_index(settings: Settings, video_id: str) -> None:
    run = make_manifest(settings, video_id)
    result = next(iter(pipeline.manifest_results(run, [video_id], settings, pipeline.Part(anew=True))))
    pipeline.store(run, pipeline.MANIFEST, replace(result, packet_index=None))
    assert not run.packet_index(video_id).exists()


def test_verify_names_a_damaged_index_and_nothing_else(settings: Settings, video_id: str) -> None:
    run = make_manifest(settings, video_id)
    before = [str(finding) for finding in check_video(run, video_id)]
    index = run.packet_index(video_id)
    content = bytearray(index.read_bytes())
    content[-5] ^= 1
    index.write_bytes(content)
    found = [str(finding) for finding in check_video(run, video_id) if str(finding) not in before]
    assert len(found) == 1
    assert "packets.index: is no packet index that clips can be read by: a block of it is damaged" in found[0].replace(
        " is no", ": is no", 1
    ).replace("::", ":")
