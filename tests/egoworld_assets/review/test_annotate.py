"""`egoworld annotate` shows each frame by its number, takes only what can be true of the video, and never loses what a sidecar had."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import trimesh
from click.testing import CliRunner
from starlette.testclient import TestClient

from egoworld_assets.cli.main import egoworld
from egoworld_assets.review import annotate_pages, annotated, serving
from egoworld_assets.review.annotated import Annotated, open_video
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings, BadSidecar, SetupError, UnknownVideo, UnsupportedLens
from egoworld_ops.execution.trying import Trial
from egoworld_ops.lake.lake import Lake
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.settings import StageSettings, load_settings
from egoworld_ops.types import Clip
from egoworld_ops.video.sidecar import Sidecar, SidecarCamera, read_sidecar
from tests.egoworld_assets.review.annotating import N_FRAMES, client_of, send, thing, video_in
from tests.egoworld_assets.review.served import asked, settings_of
from tests.egoworld_ops import media
from tests.rows import sample_row

EVIL = "<script>alert('tête 杯')</script>"
BEFORE = {"recording": "kitchen 1", "hands": {"length_m": 0.19}, "objects": [{"label": "old", "text": "a red cup"}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Annotated:
    return video_in(tmp_path_factory.mktemp("annotated") / "here")


@pytest.fixture
def video(made: Annotated) -> Iterator[Annotated]:
    """The video with a sidecar that says something already."""
    place = made.path.with_name("my mug.egoworld.json")
    place.write_text(json.dumps(BEFORE))
    yield made
    place.unlink(missing_ok=True)


@pytest.fixture
def client(video: Annotated, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(video, tmp_path) as client:
        yield client


def test_each_frame_is_the_one_its_number_says(client: TestClient) -> None:
    for frame in (0, N_FRAMES - 1, 5, 4, 6, 13):
        answer = client.get(f"/annotate/frame.jpg?frame={frame}")
        assert media.number_of(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)) == frame
    assert client.get("/annotate/frame.json?frame=3").json() == {"frame": 3, "proposals": None}
    assert [client.get(f"/annotate/frame.jpg?frame={frame}").status_code for frame in (N_FRAMES, -1, "1e3")] == [400] * 3


def test_what_is_saved_is_what_the_chain_reads_and_the_rest_stays(client: TestClient, video: Annotated) -> None:
    about = client.get("/annotate/about.json").json()
    assert about["objects"] == BEFORE["objects"]
    assert about["camera"]["source"] == "assumed_fov"
    said = {"before": about["before"], "objects": [*BEFORE["objects"], thing(EVIL)], "camera": {"hfov_deg": 90.0, "error_share": 0.05}}
    answer = send(client, "save", said).json()
    assert answer["commands"] == [f"egoworld register '{video.path}'", f"egoworld process {video.video_id}"]
    after = client.get("/annotate/about.json").json()
    assert after["camera"] == {"source": "file", "model": "pinhole", "fx_px": 80.0, "error_share": 0.05}
    now = read_sidecar(video.path)
    assert (now.recording, now.hands and now.hands.length_m) == ("kitchen 1", 0.19)
    assert [(item.label, item.text) for item in now.objects] == [("old", "a red cup"), (EVIL, None)]
    assert now.objects[1].prompts[0].box_px == (20, 30, 40, 50)
    assert send(client, "save", {"before": after["before"], "objects": [], "camera": None}).status_code == 200
    assert read_sidecar(video.path).camera == now.camera
    assert "script>alert" not in client.get("/annotate").text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"objects": [thing(frame=N_FRAMES)]}, "frame 20: the video has 20 frames"),
        ({"objects": [thing(frame=-1)]}, "greater than or equal to 0"),
        ({"objects": [thing(prompts=[{"frame_index": 0, "box_px": [150, 0, 40, 10]}])]}, "outside of the 160x120 picture"),
        ({"objects": [thing(prompts=[{"frame_index": 0, "box_px": [5, 5, 0, 10]}])]}, "greater than 0"),
        ({"objects": [thing(prompts=[{"frame_index": 0, "points_px": [[10, 200]]}])]}, "the point [10, 200] lies outside"),
        ({"objects": [thing(prompts=[{"frame_index": 0}])]}, "neither a box nor a point"),
        ({"objects": [thing(dimensions_m=[80, 80, 100])]}, "0.08, 0.08, 0.1 if these are millimetres"),
        ({"objects": [thing(dimensions_m=[0.08, None, 0.1])]}, "valid number"),
        ({"objects": [thing("")]}, "at least 1 character"),
        ({"objects": [thing(), thing()]}, "names another object too"),
        ({"objects": [thing(mesh="../../etc/passwd")]}, "plain name of a file"),
        ({"objects": [thing(mesh="gone.ply")]}, "not a regular file"),
        ({"objects": [thing(mesh="big.ply")]}, "80 m long, no hand-held thing is"),
        ({"objects": [thing(password="x")]}, "no field of this name"),
        ({"objects": 3}, "objects"),
        ({"objects": [], "camera": {"preset": "Nokia"}}, "there is no such camera"),
        ({"objects": [], "camera": {"hfov_deg": 400}}, "between 1 and 170 degrees"),
        ({"objects": [], "camera": {"fx": 0, "fy": 100, "cx": 80, "cy": 60}}, "camera.fx"),
        ({"objects": [], "camera": ["fx"]}, "camera"),
    ],
)
def test_what_cannot_be_true_is_refused_by_name_and_nothing_is_written(
    client: TestClient, video: Annotated, said: dict[str, Any], words: str
) -> None:
    trimesh.creation.box((80, 80, 80)).export(video.path.with_name("big.ply"))
    answer = send(client, "save", {"before": client.get("/annotate/about.json").json()["before"], **said})
    assert (answer.status_code, words in answer.json()["error"]) == (422, True), answer.text
    assert json.loads(video.path.with_name("my mug.egoworld.json").read_text()) == BEFORE


def test_only_its_own_page_may_write_and_only_where_annotate_serves_it(client: TestClient, video: Annotated, tmp_path: Path) -> None:
    said = {"before": client.get("/annotate/about.json").json()["before"], "objects": []}
    refused = [
        send(client, "save", said, "http://evil.example"),
        send(client, "save", said | {"csrf": "x"}),
        send(client, "save", said | {"objects": "x" * (1 << 20)}),
        client.post("/annotate/save.json", json=said),
        client.post("/annotate/save.json", content=b"[" * 100_000, headers={"origin": "http://127.0.0.1:3080"}),
        client.get("/annotate/save.json"),
        send(client, "preview", said | {"frame": True}),
    ]
    assert [answer.status_code for answer in refused] == [403, 400, 400, 403, 400, 405, 400]
    assert json.loads(video.path.with_name("my mug.egoworld.json").read_text()) == BEFORE
    with asked(tmp_path / "lake", tmp_path / "scratch") as review:
        assert review.get("/annotate").status_code == 404
        assert review.post("/annotate/save.json", json=said, headers={"origin": "http://127.0.0.1:3080"}).status_code == 404


def test_of_two_at_once_one_is_told_and_a_file_that_changed_is_not_overwritten(client: TestClient, video: Annotated) -> None:
    before = client.get("/annotate/about.json").json()["before"]
    with ThreadPoolExecutor() as both:
        answers = list(both.map(lambda label: send(client, "save", {"before": before, "objects": [thing(label)]}), ("ann", "bob")))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [told] = [answer.json()["error"] for answer in answers if answer.status_code == 409]
    assert "my mug.egoworld.json: was changed by somebody else" in told
    video.path.with_name("my mug.egoworld.json").write_text("{")
    assert "my mug.egoworld.json" in send(client, "save", {"before": before, "objects": []}).json()["error"]
    assert "my mug.egoworld.json" in client.get("/annotate/about.json").json()["error"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only"), (errno.EACCES, "Allow this user to write")]
)
def test_a_disk_that_does_not_take_it_is_named(
    client: TestClient, video: Annotated, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    before = client.get("/annotate/about.json").json()["before"]
    monkeypatch.setattr(os, "fsync", refuse)
    answer = send(client, "save", {"before": before, "objects": [thing()]})
    monkeypatch.undo()
    assert (answer.status_code, words in answer.json()["error"]) == (503, True), answer.text
    assert json.loads(video.path.with_name("my mug.egoworld.json").read_text()) == BEFORE
    assert not list(video.path.parent.glob(".tmp*"))


def test_a_video_that_went_away_or_changed_is_named(made: Annotated, tmp_path: Path) -> None:
    shutil.copytree(made.path.parent, tmp_path / "copy", dirs_exist_ok=True)
    path = tmp_path / "copy" / made.path.name
    video = open_video(str(path), made.settings, tmp_path)
    with client_of(video, tmp_path) as client:
        path.rename(path.with_suffix(".gone"))
        for address in ("about.json", "frame.json?frame=0"):
            assert "is not there" in client.get(f"/annotate/{address}").json()["error"]
        assert "is not there" in send(client, "save", {"before": "", "objects": []}).json()["error"]
        assert not list(path.parent.glob("*.egoworld.json"))
        shutil.copy2(path.with_suffix(".gone"), path)
        shutil.copy(path, path.with_suffix(".mov"))
        assert "would stand beside several videos" in send(client, "save", {"before": "", "objects": []}).json()["error"]
        media.make(path, 3)
        assert "another file than when it was opened" in send(client, "save", {"before": "", "objects": []}).json()["error"]
        assert not list(path.parent.glob("*.egoworld.json"))


def test_a_video_that_is_not_there_or_has_a_bad_sidecar_is_not_opened(video: Annotated, tmp_path: Path) -> None:
    with pytest.raises(UnknownVideo, match="is no file, and not registered"):
        open_video("mug", settings_of(tmp_path / "lake"), tmp_path)
    with pytest.raises(UnknownVideo):
        open_video(None, settings_of(tmp_path / "lake"), tmp_path)
    video.path.with_name("my mug.egoworld.json").write_text("[]")
    with pytest.raises(BadSidecar):
        open_video(str(video.path), settings_of(tmp_path / "lake"), tmp_path)


def test_the_command_names_a_port_in_use_and_a_video_that_is_not_there(made: Annotated, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for video, port, error in ((made.path, taken.getsockname()[1], BadSettings), (tmp_path / "gone.mp4", 0, UnknownVideo)):
            result = CliRunner().invoke(egoworld, ["annotate", str(video), "--port", str(port)], env={"EGOWORLD_LAKE": str(tmp_path)})
            assert isinstance(result.exception, error), result
    assert serving.address("0.0.0.0", 5, "t", annotate_pages.PLACE) == f"http://{socket.gethostname()}:5/annotate?token=t"


def test_things_are_proposed_by_their_masks_else_by_their_boxes_and_hands_are_not() -> None:
    thing = {"role": "object", "label": None, "box_px": [1.0, 2.0, 3.0, 4.0]}
    rows = {
        "masks": [sample_row("masks", 5), sample_row("masks", 5) | {"role": "object", "track_id": 10, "bbox_px": [9.0, 8.0, 7.0, 6.0]}],
        "detections": [sample_row("detections", 5) | {"track_id": track} | (thing if track > 2 else {}) for track in (1, 10, 11)],
    }
    layers = ClipLayers({stage: schema.from_rows(stage, of_stage) for stage, of_stage in rows.items()})
    assert [(each["track_id"], each["box_px"]) for each in annotated._things(layers, 5)] == [(10, [9, 8, 7, 6]), (11, [1, 2, 3, 4])]
    assert annotated._things(layers, 6) == []


def test_a_frame_that_is_skipped_leads_to_the_next_one_that_is_processed(
    video: Annotated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotated, "LOOKED_AT_FRAMES", 2)
    [clip], sparse = video.clips, video.settings.model_copy(update={"sample_stride": 5})
    alone = Annotated(video.path, [clip], None, None, sparse)
    assert (alone.look(7), sorted(alone._found)) == ((10, []), [5, 10])
    assert [alone.proposals(frame) for frame in (7, 10)] == [None, []]
    rows = [sample_row("masks", frame) | {"role": "object", "track_id": 10} for frame in (5, 10)]
    layers = ClipLayers({"masks": schema.from_rows("masks", rows)}, sample_stride=5)
    run = Lake(tmp_path).open_run({}, None, dict)
    known = Annotated(video.path, [clip], None, run, sparse, _layers={clip.clip_id: layers})
    assert [known.proposals(frame) is None for frame in range(4, 11)] == [True, False, True, True, True, True, False]
    assert [known.look(frame) for frame in (7, N_FRAMES - 1)] == [(10, known.proposals(10)), (15, [])]
    with client_of(known, tmp_path) as client:
        assert send(client, "look", {"frame": 7}).json()["frame"] == 10


def test_a_trial_says_what_it_cannot_run(video: Annotated, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"hand_pose": StageSettings(backend="mediapipe", python="/opt/other/bin/python")}
    trial = Trial(video.settings.model_copy(update={"stages": stages}))
    with pytest.raises(SetupError, match="runs in an environment of its own, which a trial does not start"):
        trial.tables(video.clips[0], 0, 4, Sidecar(), "hand_pose")
    fisheye = SidecarCamera(fx=60, fy=60, cx=79.5, cy=59.5, width=160, height=120, model="kannala_brandt", distortion=(0.1, 0, 0, 0))
    monkeypatch.setattr(operators.load("hand_pose", "mediapipe"), "handles_lenses", False)
    with pytest.raises(UnsupportedLens, match="takes pinhole cameras only"):
        Trial(video.settings).tables(video.clips[0], 0, 4, Sidecar(camera=fisheye), "hand_pose")


def test_a_trial_finds_the_pose_that_is_true(synthetic_example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance of the box of a rendered scene, from what the sidecar of that scene says, and nothing but its place."""
    monkeypatch.setattr(annotated, "POSED_FRAMES", 10)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / synthetic_example.name).symlink_to(synthetic_example)
    said = json.loads(synthetic_example.with_name(f"{synthetic_example.stem}.egoworld.json").read_text())
    [thing_there] = said["objects"]
    drawn = thing_there["prompts"][0]
    frame = drawn["frame_index"]
    clip = Clip("kitchen", "c", folder / synthetic_example.name, "0" * 64, 0, frame + 10, 0, frame + 10, 0.0, 1.0, Fraction(30), 640, 480)
    with client_of(Annotated(clip.video_path, [clip], None, None, load_settings("laptop")), tmp_path) as client:
        camera = {name: said["camera"][name] for name in ("fx", "fy", "cx", "cy")}
        found = send(client, "preview", {"objects": [thing_there | {"prompts": [drawn]}], "camera": camera, "frame": frame})
        [pose] = found.json()["poses"]
        truth = pq.read_table(
            synthetic_example.with_suffix(".truth") / "objects.parquet", filters=[("frame_index", "=", frame)]
        ).to_pylist()[0]
        assert pose["converged"]
        assert pose["z_m"] == pytest.approx(truth["z_m"], rel=0.03)
        assert found.json()["layers"]["objects"][0]["axes_px"]
    assert [path.name for path in folder.iterdir()] == [synthetic_example.name]
