"""A sidecar is accepted as a whole or refused with the place of the fault."""

import json
import os
import unicodedata
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from egoworld_ops.errors import BadSidecar, UnknownIntrinsics
from egoworld_ops.types import UNSTATED_ERROR_SHARE, Camera, Raster
from egoworld_ops.video import intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import MAX_PX, MAX_SIDE_PX, MIN_FOCAL_PX, Sidecar, read_sidecar, sidecar_path
from egoworld_ops.vision.geometry import project

CAMERA = {"fx": 500, "fy": 500, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}
GOOD = {
    "camera": CAMERA,
    "objects": [{"label": "box", "dimensions_m": [0.1, 0.2, 0.3], "prompts": [{"frame_index": 0, "box_px": [1, 2, 30, 40]}]}],
}


def write(folder: Path, content: object) -> Path:
    video = folder / "a video.mp4"
    sidecar_path(video).write_text(content if isinstance(content, str) else json.dumps(content))
    return video


def test_no_file_is_an_empty_sidecar(tmp_path: Path) -> None:
    assert read_sidecar(tmp_path / "x.mp4") == Sidecar()


def test_a_good_file_is_read(tmp_path: Path) -> None:
    read = read_sidecar(write(tmp_path, GOOD))
    assert read.objects[0].dimensions_m == (0.1, 0.2, 0.3)
    assert read.objects[0].prompts[0].box_px == (1, 2, 30, 40)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting"),
        ("[" * 100_000, ""),
        ({"objekts": []}, "objekts: there is no field of this name"),
        ({"camera": {"fx": 200}}, "camera.fy: is missing"),
        ("[]", "the whole file: want an object"),
        ({"objects": "x"}, "objects: want a list"),
        ({"camera": CAMERA | {"fx": 0}}, "camera.fx"),
        ('{"camera": {"fx": NaN, "fy": 1, "cx": 1, "cy": 1, "width": 1, "height": 1}}', "camera.fx"),
        ({"objects": [{"label": "x", "mesh": "../../etc/passwd"}]}, "objects.0.mesh"),
        ({"objects": [{"label": "x", "mesh": "/etc/passwd"}]}, "objects.0.mesh"),
        ({"objects": [{"label": "x", "mesh": "missing.obj"}]}, "not a regular file"),
        ({"objects": [{"label": "x", "prompts": [{"frame_index": -1}]}]}, "objects.0.prompts.0.frame_index"),
        ({"objects": [{"label": "x"}, {"label": "y"}, {"label": "x"}]}, "objects.2.label: 'x' names another object"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_of_the_fault(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(BadSidecar) as caught:
        read_sidecar(write(tmp_path, content))
    assert said in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fx": 1e308}, "camera.fx"),
        ({"fx": 10**400}, "camera.fx"),
        ({"fy": 5e-324}, "camera.fy"),
        ({"cx": -1e300}, "camera.cx"),
        ({"width": 10**400, "height": 10**400}, "camera.width"),
    ],
)
def test_a_camera_that_no_arithmetic_survives_is_refused(tmp_path: Path, change: dict[str, float], said: str) -> None:
    with pytest.raises(BadSidecar, match=said):
        read_sidecar(write(tmp_path, {"camera": CAMERA | change}))


@pytest.mark.parametrize("extreme", ["least", "greatest"])
@pytest.mark.parametrize("size", [1, MAX_SIDE_PX])
def test_a_camera_at_the_bounds_gives_finite_intrinsics(tmp_path: Path, extreme: str, size: int) -> None:
    focal, centre = (MIN_FOCAL_PX, -MAX_PX) if extreme == "least" else (MAX_PX, MAX_PX)
    given = {"fx": focal, "fy": focal, "cx": centre, "cy": centre, "width": size, "height": size}
    read = read_sidecar(write(tmp_path, {"camera": given}))
    for side in (1, 8192):
        found = intrinsics.resolve(side, side, read, CameraSettings(), "v")
        assert np.isfinite(found.K).all()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"dimensions_m": [0.1, 1e308, 0.1]}, "objects.0.dimensions_m.1"),
        ({"dimensions_m": [0.1, 0.1, 5e-324]}, "objects.0.dimensions_m.2"),
        ({"prompts": [{"frame_index": 10**400}]}, "objects.0.prompts.0.frame_index"),
        ({"prompts": [{"frame_index": 0, "box_px": [0, 0, 1e308, 1]}]}, "objects.0.prompts.0.box_px.2"),
        ({"prompts": [{"frame_index": 0, "points_px": [[0, -1e308]]}]}, "objects.0.prompts.0.points_px.0.1"),
        ({"mesh": "m" * 300}, "objects.0.mesh"),
        ({"mesh": "\u6599" * 200}, "objects.0.mesh"),
    ],
)
def test_an_object_beyond_all_bounds_is_refused(tmp_path: Path, item: dict[str, object], said: str) -> None:
    with pytest.raises(BadSidecar, match=said):
        read_sidecar(write(tmp_path, {"objects": [{"label": "x"} | item]}))


def test_too_many_objects_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSidecar, match="objects"):
        read_sidecar(write(tmp_path, {"objects": [{"label": str(n)} for n in range(200_000)]}))


def test_a_mesh_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").symlink_to("/etc/passwd")
    with pytest.raises(BadSidecar, match="mesh"):
        read_sidecar(write(tmp_path, {"objects": [{"label": "x", "mesh": "mesh.obj"}]}))


def test_the_digest_of_a_section_changes_with_that_section_and_with_its_mesh_only(tmp_path: Path) -> None:
    (tmp_path / "m.obj").write_text("v 0 0 0")
    with_mesh = Sidecar.model_validate(GOOD | {"objects": [{"label": "box", "mesh": "m.obj"}]})
    other_camera = with_mesh.model_copy(update={"camera": None})
    before = with_mesh.section_digest("objects", tmp_path)
    assert other_camera.section_digest("objects", tmp_path) == before
    assert other_camera.section_digest("camera", tmp_path) != with_mesh.section_digest("camera", tmp_path)
    (tmp_path / "m.obj").write_text("v 0 0 1")
    assert with_mesh.section_digest("objects", tmp_path) != before


def test_intrinsics_scale_with_the_picture_about_the_pixel_corners() -> None:
    sidecar = Sidecar.model_validate({"camera": GOOD["camera"]})
    half = intrinsics.resolve(320, 240, sidecar, CameraSettings(), "v")
    assert (half.fx_px, half.source) == (250, "file")
    assert np.isclose(half.cx_px, 159.5)


def test_intrinsics_of_another_shape_are_refused() -> None:
    with pytest.raises(BadSidecar, match="aspect"):
        intrinsics.resolve(480, 640, Sidecar.model_validate({"camera": GOOD["camera"]}), CameraSettings(), "v")


def test_unknown_intrinsics_are_said_to_be_assumed_or_refused() -> None:
    assumed = intrinsics.resolve(640, 480, Sidecar(), CameraSettings(assumed_hfov_deg=90), "v")
    assert np.isclose(assumed.fx_px, 320)
    assert assumed.source == "assumed_fov"
    with pytest.raises(UnknownIntrinsics, match="require_known"):
        intrinsics.resolve(640, 480, Sidecar(), CameraSettings(require_known=True), "v")


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "device"])
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    video = tmp_path / "v.mp4"
    path = sidecar_path(video)
    make = {
        "fifo": os.mkfifo,
        "folder": os.mkdir,
        "dangling link": lambda p: os.symlink("/no/such/file", p),
        "device": lambda p: os.symlink("/dev/zero", p),
    }
    make[kind](path)
    with pytest.raises(BadSidecar, match=r"egoworld\.json"):
        read_sidecar(video)


def test_one_sidecar_never_serves_two_videos(tmp_path: Path) -> None:
    video = write(tmp_path, GOOD)
    video.touch()
    read_sidecar(video)
    video.with_suffix(".MOV").touch()
    with pytest.raises(BadSidecar, match="several videos"):
        read_sidecar(video)


@pytest.mark.parametrize(
    ("size", "cure"),
    [
        ([160, 110, 60], "0.16, 0.11, 0.06 if these are millimetres"),
        ([16, 11, 6], "0.16, 0.11, 0.06 if they are centimetres"),
        ([9, 0.1, 0.1], "metres"),
        ([0.00016, 0.00011, 0.00006], "metres"),
    ],
)
def test_lengths_that_no_hand_held_thing_has_are_refused_in_one_line_with_the_cure(tmp_path: Path, size: list[float], cure: str) -> None:
    with pytest.raises(BadSidecar) as caught:
        read_sidecar(write(tmp_path, {"objects": [{"label": "x", "dimensions_m": size}]}))
    line = str(caught.value)
    assert "a video.egoworld.json" in line
    assert "objects.0.dimensions_m" in line
    assert cure in line
    assert "\n" not in line


@pytest.mark.parametrize("size", [[0.0024, 0.001, 0.001], [1.5, 0.3, 0.03], [0.0856, 0.054, 0.00076]])
def test_needles_brooms_and_cards_are_taken(tmp_path: Path, size: list[float]) -> None:
    assert read_sidecar(write(tmp_path, {"objects": [{"label": "x", "dimensions_m": size}]})).objects[0].dimensions_m == tuple(size)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"camera": null, "camera": null}', "camera"),
        ('{"objects": [{"label": "a", "label": "b"}]}', "label"),
        ('{"objects": [], "obj\\u0065cts": []}', "objects"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_name(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(BadSidecar, match=f"{key}: the key stands twice"):
        read_sidecar(write(tmp_path, text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood(tmp_path: Path, encoding: str) -> None:
    video = tmp_path / "v.mp4"
    sidecar_path(video).write_bytes(json.dumps(GOOD).encode(encoding))
    assert read_sidecar(video).objects[0].label == "box"


@pytest.mark.parametrize(("of_video", "of_sidecar"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_forms_of_one_name_are_one_name(tmp_path: Path, of_video: str, of_sidecar: str) -> None:
    video = tmp_path / (unicodedata.normalize(of_video, "k\u00fcche.mp4"))
    beside = tmp_path / (unicodedata.normalize(of_sidecar, "k\u00fcche.egoworld.json"))
    beside.write_text(json.dumps(GOOD))
    assert sidecar_path(video) == beside
    assert read_sidecar(video).camera is not None


def test_a_sidecar_named_after_the_whole_file_is_no_silent_pinhole(tmp_path: Path) -> None:
    video = tmp_path / "clip.MP4"
    (tmp_path / "clip.MP4.egoworld.json").write_text(json.dumps(GOOD))
    with pytest.raises(BadSidecar, match=r"Rename it to clip\.egoworld\.json"):
        read_sidecar(video)
    (tmp_path / "clip.MP4.mov").touch()
    assert read_sidecar(video) == Sidecar()
    assert read_sidecar(tmp_path / "clip.MP4.mov").camera is not None


@pytest.mark.parametrize("stem", ["CLIP", "Clip", "cLip"])
def test_a_sidecar_in_other_letters_is_no_silent_pinhole(tmp_path: Path, stem: str) -> None:
    video = tmp_path / "clip.mp4"
    (tmp_path / f"{stem}.egoworld.json").write_text(json.dumps(GOOD))
    with pytest.raises(BadSidecar, match=r"Rename it to clip\.egoworld\.json"):
        read_sidecar(video)
    (tmp_path / f"{stem}.mov").touch()
    assert read_sidecar(video) == Sidecar()


def test_the_assumed_camera_looks_through_the_middle_of_the_picture() -> None:
    """The centre of the top-left pixel is (0, 0), so that of 640 pixels is at 319.5."""
    camera = intrinsics.resolve(640, 480, Sidecar(), CameraSettings(assumed_hfov_deg=90), "v")
    assert (camera.cx_px, camera.cy_px) == (319.5, 239.5)
    assert (camera.fx_px, camera.fy_px) == (pytest.approx(320), pytest.approx(320))


LENS = {"model": "kannala_brandt", "distortion": [0.02, -0.008, 0.003, -0.0006]}


def test_a_lens_is_the_same_at_every_size_of_the_picture() -> None:
    sidecar = Sidecar.model_validate({"camera": CAMERA | LENS})
    whole, half = (intrinsics.resolve(w, h, sidecar, CameraSettings(), "v") for w, h in ((640, 480), (320, 240)))
    assert (half.model, half.distortion) == (whole.model, whole.distortion) == ("kannala_brandt", tuple(LENS["distortion"]))
    points_m = np.array([[0.3, -0.2, 0.4], [-0.6, 0.1, 0.5]])
    assert (project(half, points_m) + 0.5) * 2 - 0.5 == pytest.approx(project(whole, points_m))


def test_a_lens_of_a_stored_picture_is_cropped_and_stretched_with_it() -> None:
    """A lens calibrated on the stored picture of oblong pixels sees a point where the picture shown has that stored pixel."""
    raster = Raster(480, 480, 4 / 3, 1.0, 20, 3)
    given = CAMERA | LENS | {"fx": 240, "fy": 320, "cx": 239.5, "cy": 236.0, "width": 480, "height": 480}
    shown = intrinsics.resolve(600, 470, Sidecar.model_validate({"camera": given}), CameraSettings(), "v", raster)
    stored = Camera(240, 320, 239.5, 236.0, 480, 480, "file", "kannala_brandt", tuple(LENS["distortion"]))
    points_m = np.array([[0.3, -0.2, 0.4], [-0.6, 0.1, 0.5], [0.0, 0.3, 0.3]])
    at = (project(stored, points_m) + 0.5) * (4 / 3, 1.0) - 0.5 - (20, 3)
    assert project(shown, points_m) == pytest.approx(at)


def test_the_pinhole_is_the_default_lens() -> None:
    camera = intrinsics.resolve(640, 480, Sidecar.model_validate({"camera": CAMERA}), CameraSettings(), "v")
    assert camera == Camera(500, 500, 319.5, 239.5, 640, 480, "file", focal_error_share=UNSTATED_ERROR_SHARE)
    assert camera.is_pinhole


@pytest.mark.parametrize(
    ("lens", "said", "cure"),
    [
        ({"model": "kannala_brandt"}, "kannala_brandt has 4 finite coefficients", "as many coefficients as the model has"),
        ({"distortion": [0.1, 0.1, 0, 0]}, "pinhole has 0 finite coefficients", "as many coefficients as the model has"),
        ({"model": "plumb_bob", "distortion": [0.1] * 6}, "plumb_bob has 4 or 5 finite coefficients", "as many coefficients"),
        ({"model": "plumb_bob", "distortion": [-2.0, 0, 0, 0]}, "shows two rays in one pixel of the 640x480 picture", "in the order"),
        ({"model": "kannala_brandt", "distortion": [-1.5, 0, 0, 0]}, "shows two rays in one pixel", "in the order"),
        ({"model": "rational_polynomial", "distortion": [0, 0, 0, 0, 0, 5.0, 0, 0]}, "shows two rays in one pixel", "in the order"),
        ({"model": "plumb_bob", "distortion": [0.1, 0, 5.0, 0]}, "shows two rays in one pixel", "in the order"),
        ({"model": "plumb_bob", "distortion": [1e300, 0, 0, 0]}, "camera.distortion.0", "docs/data_contract.md"),
        ({"model": "equidistant", "distortion": [0, 0, 0, 0]}, "camera.model", "docs/data_contract.md"),
    ],
)
def test_an_implausible_lens_is_refused(tmp_path: Path, lens: dict[str, object], said: str, cure: str) -> None:
    with pytest.raises(BadSidecar) as caught:
        read_sidecar(write(tmp_path, {"camera": CAMERA | lens}))
    assert said in str(caught.value)
    assert cure in caught.value.cure


def test_a_lens_goes_through_a_task(tmp_path: Path) -> None:
    camera = intrinsics.resolve(320, 240, Sidecar.model_validate({"camera": CAMERA | LENS}), CameraSettings(), "v")
    assert Camera.from_json(json.loads(json.dumps(asdict(camera)))) == camera
