"""The command `render`: which video, run and place it takes, and what it says where that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest
from click.testing import CliRunner, Result

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.clips import clips_of
from egoworld_assets.cli.main import egoworld
from egoworld_assets.cli.rendering import _rendering
from egoworld_ops.errors import EgoworldError
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings
from tests.egoworld_ops import media
from tests.finished import RowsPool, settings_of_commands


def call(*arguments: str) -> Result:
    return CliRunner().invoke(egoworld, ("render", *arguments))


def refused(*arguments: str) -> str:
    done = call(*arguments)
    assert done.exit_code, done.output
    assert isinstance(done.exception, (EgoworldError, SystemExit)), done.exception
    return str(done.exception) if isinstance(done.exception, EgoworldError) else done.output


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_of_commands(tmp_path, monkeypatch)


def processed(settings: Settings, name: str, last: str = "events") -> tuple[Run, str]:
    """A real video of ten frames with a manifest, and rows up to a stage."""
    path = media.make(settings.raw / f"{name}.mp4", 10, (64, 48), options={"crf": str(10 + len(name))})
    [video_id] = register.register(settings.lake, [path]).video_ids
    run = configuration.open_run(settings)
    for stage in (pipeline.Part(last="manifest"), pipeline.Part(first="detections", last=last)):
        assert all(result for result in pipeline.process(run, [video_id], settings, RowsPool(), stage))
    return run, video_id


def test_the_last_video_is_rendered_where_none_is_named_and_half_a_run_says_what_is_not_drawn(settings: Settings) -> None:
    run, first = processed(settings, "cup")
    _, second = processed(settings, "plate", last="hand_pose")
    os.utime(run.video_table("states", first), ns=(1, 1))
    done = call("--layers", "hands")
    assert done.exit_code == 0, done.output
    assert f"{second}.render.mp4  10 frames" in done.output
    assert "not all of it is drawn: incomplete" in done.output
    with av.open(f"{second}.render.mp4") as video:
        assert len(list(video.decode(video=0))) == 10
    assert call("cup", "--run", "latest", "--layers", "hands", "--raw", "--out", "b.mp4").exit_code == 0
    assert sorted(p.name for p in Path.cwd().glob("*.mp4")) == ["b.mp4", f"{second}.render.mp4"]


def test_empty_layers_are_those_that_are_drawn_where_none_are_named() -> None:
    made = [_rendering(1, layers, hands=None, size_px=640) for layers in ("", None, "robots")]
    assert made[0] == made[1]
    assert [how.robots_over for how in made] == [False, False, True]


def test_what_cannot_be_is_one_line_with_a_cure(settings: Settings) -> None:
    assert "holds no run" in refused()
    run, video_id = processed(settings, "cup", last="detections")
    [clip] = clips_of(run, video_id)
    raw = clip.video_path
    assert f"is not in run {run.run_id}. There are {video_id}." in refused("cap")
    assert f"is not one of video {video_id}. Did you mean {clip.clip_id}?" in refused("--clip", clip.clip_id[:-1])
    assert "there is no layer 'mask'. Did you mean masks?" in refused("--layers", "mask")
    assert "Name a file that ends in .mp4" in refused("--out", "a.mkv")
    assert "is no folder. Make it" in refused("--out", "nowhere/a.mp4")
    assert "would be taken for a new video" in refused("--out", str(settings.raw / "a.mp4"))
    assert "was not made by" in refused("--out", str(media.make(Path("mine.mp4"), 2, (64, 48))))
    content = raw.read_bytes()
    raw.write_bytes(content[:-1] + b"x")
    assert "holds other content than when it was registered" in refused()
    raw.unlink()
    assert "is not there. Put the file back" in refused()
    assert not list(Path.cwd().glob("*.part")) + list(Path.cwd().glob(".*.part"))


def test_a_video_that_was_rejected_has_nothing_to_render(settings: Settings) -> None:
    path = settings.raw / "bad.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    media.aged(path)
    [video_id] = register.register(settings.lake, [path]).video_ids
    run = configuration.open_run(settings)
    list(pipeline.process(run, [video_id], settings, RowsPool(), pipeline.Part(last="manifest")))
    assert "has no clips: it was rejected" in refused(video_id)
