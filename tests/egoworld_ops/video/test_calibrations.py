"""Calibration files of other tools, written by those tools where they are installed, and checked by projecting points with OpenCV."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from egoworld_assets.cli.main import egoworld
from egoworld_ops.errors import BadCalibration, BadSettings, BadSidecar, EgoworldError
from egoworld_ops.types import Camera
from egoworld_ops.video import calibrations
from egoworld_ops.video.calibrations.base import Calibration
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar, read_sidecar
from egoworld_ops.vision import lenses
from tests.egoworld_ops import media

SIZE = (640, 480)
K = np.array([[420.5, 0, 322.25], [0, 418.0, 236.5], [0, 0, 1]])
BY_COLMAP = Path(__file__).parent / "colmap"
RADTAN = [-0.28, 0.07, 2e-4, 1.8e-5]
FISHEYE = [0.021, -0.013, 0.004, -0.0011]
RATIONAL = [0.4, -0.2, 1e-3, -5e-4, 0.05, 0.7, -0.1, 0.02]
POINTS = np.random.default_rng(3).uniform([-0.6, -0.5, 0.8], [0.6, 0.5, 1.5], (40, 3))


def projected(camera: Calibration, points: np.ndarray = POINTS) -> np.ndarray:
    """(N, 2) pixels by OpenCV's own functions."""
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    still = np.zeros(3)
    if camera.model == "kannala_brandt":
        return cv2.fisheye.projectPoints(points[:, None], still, still, matrix, np.array(camera.distortion))[0][:, 0]
    return cv2.projectPoints(points, still, still, matrix, np.array(camera.distortion or [0.0] * 4))[0][:, 0]


def used(camera: Calibration, size: tuple[int, int] = SIZE) -> Camera:
    """The camera that stages get with a sidecar that holds this one."""
    return resolve(*size, Sidecar.model_validate({"camera": camera.section()}), CameraSettings(), "v")


def by_opencv(matrix: np.ndarray, distortion: Sequence[float], fisheye: bool = False, points: np.ndarray = POINTS) -> np.ndarray:
    (fx, _, cx), (_, fy, cy), _ = matrix
    return projected(Calibration("", "kannala_brandt" if fisheye else "", fx, fy, cx, cy, 1, 1, tuple(distortion)), points)


def read(path: Path, name: str | None = None, picture: tuple[int, int] = SIZE, model: str | None = None) -> Calibration:
    return calibrations.read(path, picture).camera(path, name, model)


def written(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def by_file_storage(path: Path, values: Mapping[str, Any]) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in values.items():
        storage.write(name, value)
    storage.release()
    return path


@pytest.mark.parametrize("suffix", ["yml", "yaml", "json"])
@pytest.mark.parametrize(
    ("model", "distortion", "fisheye"),
    [
        ("plumb_bob", RADTAN, False),
        ("plumb_bob", [*RADTAN, 0.03], False),
        ("rational_polynomial", RATIONAL, False),
        ("kannala_brandt", FISHEYE, True),
        ("pinhole", [0.0] * 5, False),
    ],
)
def test_a_calibration_that_opencv_wrote(tmp_path: Path, suffix: str, model: str, distortion: list[float], fisheye: bool) -> None:
    said = {"calibration_time": "Sun", "image_width": 640, "image_height": 480, "flags": 0, "camera_matrix": K}
    said |= {"fisheye_model": 1} if fisheye else {}
    path = by_file_storage(tmp_path / f"calib.{suffix}", said | {"distortion_coefficients": np.array([distortion]).T})
    camera = read(path)
    assert (camera.model, camera.width, camera.height) == (model, *SIZE)
    assert projected(camera) == pytest.approx(by_opencv(K, distortion, fisheye), abs=1e-9)


def test_the_header_of_older_versions_is_no_yaml_and_is_read(tmp_path: Path) -> None:
    path = by_file_storage(tmp_path / "old.yml", {"image_width": 640, "image_height": 480, "camera_matrix": K})
    path.write_text("%YAML:1.0\n---\n" + path.read_text().partition("---\n")[2])
    assert read(path).fx == K[0, 0]


def test_four_coefficients_without_a_word_are_said_to_be_ambiguous_and_a_person_decides(tmp_path: Path) -> None:
    path = by_file_storage(tmp_path / "fish.yml", {"image_width": 640, "image_height": 480, "K": K, "D": np.array(FISHEYE)})
    assert "--model kannala_brandt" in read(path).note
    camera = read(path, model="kannala_brandt")
    assert projected(camera) == pytest.approx(by_opencv(K, FISHEYE, True), abs=1e-9)
    assert not camera.note
    with pytest.raises(BadCalibration, match=r"rational_polynomial with 4 coefficients.*rational_polynomial \(8 coefficients\)"):
        read(path, model="rational_polynomial")


def test_opencvs_larger_models_are_taken_where_the_rest_is_zero_and_refused_else(tmp_path: Path) -> None:
    said = {"image_width": 640, "image_height": 480, "camera_matrix": K}
    padded = by_file_storage(tmp_path / "a.yml", said | {"distortion_coefficients": np.array([*RATIONAL, *[0.0] * 6])})
    assert projected(read(padded)) == pytest.approx(by_opencv(K, [*RATIONAL, *[0.0] * 6]), abs=1e-9)
    prism = by_file_storage(tmp_path / "b.yml", said | {"distortion_coefficients": np.array([*RATIONAL, 1e-3, 0.0, 0.0, 0.0])})
    with pytest.raises(BadCalibration, match=r"12 coefficients, which is not known here.*Known are pinhole"):
        read(prism)


def test_a_stereo_calibration_of_opencv_names_no_size(tmp_path: Path) -> None:
    path = by_file_storage(
        tmp_path / "intrinsics.yml", {"M1": K, "D1": np.array([RADTAN]), "M2": K + np.diag([5, 5, 0]), "D2": np.array([RADTAN])}
    )
    with pytest.raises(BadCalibration, match=r"holds 2 cameras: 1, 2.*--camera"):
        read(path)
    assert read(path, "2").fx == K[0, 0] + 5
    assert read(path, "2").width is None


def test_a_calibration_of_ros(tmp_path: Path) -> None:
    path = written(
        tmp_path / "head.yaml",
        f"""
        image_width: 640
        image_height: 480
        camera_name: head
        camera_matrix: {{rows: 3, cols: 3, data: {K.ravel().tolist()}}}
        distortion_model: equidistant
        distortion_coefficients: {{rows: 1, cols: 4, data: {FISHEYE}}}
        """,
    )
    camera = read(path)
    assert (camera.name, camera.model) == ("head", "kannala_brandt")
    assert projected(camera) == pytest.approx(by_opencv(K, FISHEYE, True), abs=1e-9)


KALIBR = f"""
cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: {RADTAN}
  distortion_model: radtan
  intrinsics: [420.5, 418.0, 322.25, 236.5]
  resolution: [640, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.11]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: {FISHEYE}
  distortion_model: equi
  intrinsics: [420.5, 418.0, 322.25, 236.5]
  resolution: [640, 480]
cam2:
  camera_model: ds
  distortion_coeffs: []
  distortion_model: none
  intrinsics: [-0.2, 0.6, 420.5, 418.0, 322.25, 236.5]
  resolution: [640, 480]
"""


def test_kalibr_names_its_cameras(tmp_path: Path) -> None:
    path = written(tmp_path / "camchain.yaml", KALIBR)
    with pytest.raises(BadCalibration, match="holds 3 cameras: cam0, cam1, cam2"):
        read(path)
    assert projected(read(path, "cam0")) == pytest.approx(by_opencv(K, RADTAN), abs=1e-9)
    assert projected(read(path, "cam1")) == pytest.approx(by_opencv(K, FISHEYE, True), abs=1e-9)
    with pytest.raises(BadCalibration, match="model ds-none, which is not known here"):
        read(path, "cam2")
    with pytest.raises(BadCalibration, match=r"no camera 'cam_0'.*cam0"):
        read(path, "cam_0")


COLMAP = {
    "SIMPLE_PINHOLE": ([420.0, 320.0, 240.0], 420.0, [], False),
    "PINHOLE": ([420.5, 418.0, 320.0, 240.0], 418.0, [], False),
    "SIMPLE_RADIAL": ([420.0, 320.0, 240.0, -0.1], 420.0, [-0.1, 0, 0, 0], False),
    "RADIAL": ([420.0, 320.0, 240.0, -0.1, 0.02], 420.0, [-0.1, 0.02, 0, 0], False),
    "OPENCV": ([420.5, 418.0, 320.0, 240.0, *RADTAN], 418.0, RADTAN, False),
    "OPENCV_FISHEYE": ([420.5, 418.0, 320.0, 240.0, *FISHEYE], 418.0, FISHEYE, True),
    "FULL_OPENCV": ([420.5, 418.0, 320.0, 240.0, *RATIONAL], 418.0, RATIONAL, False),
    "SIMPLE_RADIAL_FISHEYE": ([420.0, 320.0, 240.0, 0.02], 420.0, [0.02, 0, 0, 0], True),
    "RADIAL_FISHEYE": ([420.0, 320.0, 240.0, 0.02, -0.01], 420.0, [0.02, -0.01, 0, 0], True),
}


@pytest.mark.parametrize("model", COLMAP)
def test_colmap_counts_pixels_from_the_corner(tmp_path: Path, model: str) -> None:
    """The middle of a picture of even size is (320, 240) there and (319.5, 239.5) here."""
    parameters, fy, distortion, fisheye = COLMAP[model]
    path = written(
        tmp_path / "cameras.txt",
        f"""
        # Camera list with one line of data per camera:
        #   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
        # Number of cameras: 1
        7 {model} 640 480 {" ".join(map(str, parameters))}
        """,
    )
    camera = read(path)
    assert camera.name == "7"
    at_centres = np.array([[parameters[0], 0, 319.5], [0, fy, 239.5], [0, 0, 1]])
    assert projected(camera) == pytest.approx(by_opencv(at_centres, distortion, fisheye), abs=1e-9)


def test_a_file_that_colmap_wrote_gives_the_pixels_that_colmap_gives() -> None:
    """`colmap/` was made by pycolmap; its pixels are half a pixel off ours in both directions, whatever the model."""
    made = json.loads((BY_COLMAP / "pixels.json").read_text())
    points = np.array(made["points"])
    found = calibrations.read(BY_COLMAP / "cameras.txt", SIZE)
    assert found.format == "colmap"
    assert [one.name for one in found.cameras] == list(made["pixels"])
    assert {one.model for one in found.cameras} == {"pinhole", "plumb_bob", "kannala_brandt", "rational_polynomial", "fisheye624"}
    for camera in found.cameras:
        at_corners = np.array(made["pixels"][camera.name])
        assert lenses.project(used(camera), points) == pytest.approx(at_corners - 0.5, abs=1e-6), camera
        if camera.model != "fisheye624":  # OpenCV has no such lens
            assert projected(camera, points) == pytest.approx(at_corners - 0.5, abs=1e-6), camera


def test_a_model_of_colmap_that_the_sidecar_has_not(tmp_path: Path) -> None:
    path = written(tmp_path / "cameras.txt", "1 FOV 640 480 420 420 320 240 0.9\n2 PINHOLE 640 480 420 420 320 240\n")
    with pytest.raises(BadCalibration, match="model FOV, which is not known here"):
        read(path, "1")
    assert read(path, "2").cx == 319.5
    with pytest.raises(BadCalibration, match="PINHOLE has 4 parameters, got 3"):
        read(written(path, "1 PINHOLE 640 480 420 320 240\n"))


PRISM = [0.4, -0.5, 0.1, 1.2, -1.6, 0.6, 2e-4, -6e-4, 8e-4, -1e-4, 4e-4, -2e-5]


def aria(**camera: Any) -> dict[str, Any]:
    """A factory calibration as the device has it, its sizes unsaid."""
    rgb, slam = (
        {"Name": "FisheyeRadTanThinPrism", "Params": [*lens, *PRISM]} for lens in ((1220.0, 1460.0, 1440.5), (240.0, 319.5, 239.5))
    )
    cameras = [{"Label": "camera-rgb", "Projection": rgb} | camera, {"Label": "camera-slam-left", "Projection": slam}]
    return {"CameraCalibrations": cameras, "DeviceClassInfo": {"DeviceClass": "Aria", "BuildVersion": "DVT"}}


def test_aria_and_its_picture_of_half_the_size(tmp_path: Path) -> None:
    """A ray through a calibrated pixel goes through the pixel that the device makes of it: cut off 32 at each edge, then every 2 x 2 is one."""
    path = written(tmp_path / "calib.json", json.dumps(aria()))
    full, half = read(path, "camera-rgb", (2880, 2880)), read(path, "camera-rgb", (1408, 1408))
    assert (full.model, full.width, full.cx, full.fx) == ("fisheye624", 2880, 1460.0, 1220.0)
    assert (half.width, half.height, half.fx) == (1408, 1408, 610.0)
    assert "cropped and halved" in half.note
    assert half.distortion == full.distortion == tuple(PRISM)
    for there, here in ((full.cx, half.cx), (full.cy, half.cy)):
        corner = there + 0.5 - 32
        assert here + 0.5 == corner / 2
    slam = read(path, "camera-slam-left")
    assert (slam.width, slam.height, slam.fx, slam.fy) == (640, 480, 240.0, 240.0)


def test_aria_online_and_newer_devices_say_their_sizes(tmp_path: Path) -> None:
    line = json.dumps(aria() | {"ImageSizes": [[1408, 1408], [640, 480]]})
    assert read(written(tmp_path / "online.jsonl", f"{line}\n{line}\n"), "camera-rgb", (1408, 1408)).fx == 1220.0
    newer = aria(ConfigData={"ImageWidth": 2560, "ImageHeight": 1920}) | {"DeviceClassInfo": {"DeviceClass": "Aria Gen2"}}
    path = written(tmp_path / "gen2.json", json.dumps(newer))
    assert (read(path, "camera-rgb").width, read(path, "camera-slam-left").width) == (2560, None)


def test_the_cameras_of_hot3d(shared_data: Path) -> None:
    path = shared_data / "hot3d_sample" / "Quest3" / "camera_models.json"
    [said, _] = json.loads(path.read_text())
    camera = read(path, "camera-slam-left")
    assert (camera.model, camera.width, camera.height) == ("fisheye624", 1280, 1024)
    assert [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion] == said["projectionParams"]
    assert used(camera, (640, 512)).distortion == camera.distortion


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("!!python/object/apply:os.system ['touch PWNED']\n", "no calibration file"),
        ("%YAML:1.0\n---\ncamera_matrix: !!python/object/apply:os.system ['touch PWNED']\n", "no calibration file"),
        ("[" * 2_000, "no calibration file"),
        ("a: &a [1]\nb: &b [*a,*a]\ncamera_matrix: *b\n", "want a matrix|want 9 numbers"),
        ("camera_matrix: {data: [1, 0, 2, 0, .nan, 2, 0, 0, 1]}\n", "not all are finite"),
        ("camera_matrix: {data: [1, 0, 2, 0, x, 2, 0, 0, 1]}\n", "want numbers"),
        ("camera_matrix: {data: [-1, 0, 2, 0, 1, 2, 0, 0, 1]}\n", "want .fx 0 cx"),
        ("camera_matrix: {data: [1, 0.5, 2, 0, 1, 2, 0, 0, 1]}\n", "want .fx 0 cx"),
        ('{"CameraCalibrations": [3]}', "want an object"),
        ('[{"projectionModelType": "CameraModelType.FISHEYE624", "imageWidth": 0, "imageHeight": 4}]', "positive whole number"),
        ("", "no calibration file"),
        ("hello\n", "no calibration file"),
    ],
)
def test_files_that_are_none_are_refused_and_nothing_in_them_is_run(
    tmp_path: Path, content: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadCalibration, match=reason):
        read(written(tmp_path / "calib", content))
    assert not (tmp_path / "PWNED").exists()


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cameras.bin").write_bytes(b"\x01\x00\xff\xfe")
    for path, reason in ((tmp_path / "cameras.bin", "not text"), (tmp_path, "not a file"), (tmp_path / "none", "not a file")):
        with pytest.raises(BadCalibration, match=reason):
            calibrations.read(path, SIZE)


def test_every_format_says_what_it_reads() -> None:
    assert set(calibrations.formats()) >= {"aria", "colmap", "kalibr", "opencv"}
    assert all("does not say" not in calibrations.described(name) for name in calibrations.formats())


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return media.make(tmp_path / "v.mp4", 2, (320, 240))


@pytest.fixture
def colmap(tmp_path: Path) -> Path:
    return written(tmp_path / "cameras.txt", "1 PINHOLE 640 480 420 418 320 240\n")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(egoworld, ["calibrate", "import", *map(str, arguments)])


def test_the_command_says_what_it_read_and_keeps_the_rest_of_the_sidecar(video: Path, colmap: Path) -> None:
    sidecar = video.with_name("v.egoworld.json")
    sidecar.write_text(json.dumps({"recording": "Größe", "objects": [{"label": "mug"}]}))
    done = run(colmap, video)
    assert done.exit_code == 0, done.output
    assert f"read   {colmap}: format colmap, camera '1': pinhole, fx 420 fy 418 cx 319.5 cy 239.5, for 640x480" in done.stdout
    assert "picture 320x240, fx 210 px, scaled from 640x480" in done.stdout
    said = json.loads(sidecar.read_text())
    assert said["camera"] == {"fx": 420, "fy": 418, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}
    assert (said["recording"], said["objects"]) == ("Größe", [{"label": "mug"}])
    assert [path.name for path in video.parent.iterdir() if path.name.startswith(".")] == []
    assert run(colmap, video).exit_code == 0, "the same camera again is no conflict"
    sidecar.write_text(json.dumps({"recording": "Größe"}), "utf-8-sig")
    assert run(colmap, video).exit_code == 0, "a byte order mark is understood here too"
    assert json.loads(sidecar.read_text())["recording"] == "Größe"


def test_the_error_of_a_calibration_is_taken_along_where_it_is_told(video: Path, colmap: Path) -> None:
    assert run(colmap, video).exit_code == 0
    assert read_sidecar(video).camera.focal_error_share is None
    assert run("--error", 0.004, "--force", colmap, video).exit_code == 0
    assert read_sidecar(video).camera.focal_error_share == 0.004
    assert run("--error", 4, "--force", colmap, video).exit_code == 2


@pytest.mark.parametrize(
    ("distortion", "fisheye"), [(RADTAN, False), ([*RADTAN, 0.003], False), (RATIONAL, False), (FISHEYE, True)], ids=str
)
def test_a_lens_goes_from_the_file_of_opencv_to_the_pixels_of_the_stages(
    video: Path, tmp_path: Path, distortion: list[float], fisheye: bool
) -> None:
    """Through command, sidecar and intrinsics, at half the calibrated size: where the lens shows a point, OpenCV sees it too."""
    said = {"image_width": 640, "image_height": 480, "camera_matrix": K, "distortion_coefficients": np.array([distortion]).T}
    path = by_file_storage(tmp_path / "calib.yml", said | ({"fisheye_model": 1} if fisheye else {}))
    done = run(path, video)
    assert done.exit_code == 0, (done.output, done.exception)
    camera = resolve(320, 240, read_sidecar(video), CameraSettings(), video)
    assert (camera.metric, camera.source, camera.distortion) == (True, "file", tuple(distortion))
    near = POINTS * [0.5, 0.5, 1]
    at_full_size = by_opencv(K, distortion, fisheye, near)
    assert lenses.project(camera, near) == pytest.approx((at_full_size + 0.5) / 2 - 0.5, abs=1e-9)


def test_a_lens_that_shows_two_rays_in_one_pixel_is_refused_before_it_is_written(video: Path, tmp_path: Path) -> None:
    said = {"image_width": 640, "image_height": 480, "camera_matrix": K, "distortion_coefficients": np.array([[-0.9, 0.0, 0.0, 0.0]]).T}
    refused = run(by_file_storage(tmp_path / "calib.yml", said), video)
    assert isinstance(refused.exception, BadSidecar)
    assert "two rays in one pixel" in str(refused.exception)
    assert not video.with_name("v.egoworld.json").exists()


def test_another_camera_is_replaced_only_by_force(video: Path, colmap: Path, tmp_path: Path) -> None:
    assert run(colmap, video).exit_code == 0
    before = video.with_name("v.egoworld.json").read_bytes()
    other = written(tmp_path / "other.txt", "1 PINHOLE 640 480 500 500 320 240\n")
    refused = run(other, video)
    assert isinstance(refused.exception, BadSettings)
    assert "has another camera already" in str(refused.exception)
    assert video.with_name("v.egoworld.json").read_bytes() == before
    assert run(other, video, "--force").exit_code == 0
    assert json.loads(video.with_name("v.egoworld.json").read_text())["camera"]["fx"] == 500


def test_nothing_is_written_where_one_video_does_not_fit(video: Path, colmap: Path) -> None:
    wide = media.make(video.with_name("wide.mp4"), 2, (320, 180))
    refused = run(colmap, video, wide)
    assert isinstance(refused.exception, BadSidecar)
    assert "another aspect ratio" in str(refused.exception)
    assert not list(video.parent.glob("*.egoworld.json"))


def test_a_size_that_the_file_does_not_say_is_asked_for(video: Path, tmp_path: Path) -> None:
    path = by_file_storage(tmp_path / "k.yml", {"K": K})
    assert "--size WIDTHxHEIGHT" in str(run(path, video).exception)
    assert "--size WIDTHxHEIGHT" in str(run(path, video, "--size", "640").exception)
    assert run(path, video, "--size", "640x480").exit_code == 0
    stated = by_file_storage(tmp_path / "s.yml", {"K": K, "image_width": 640, "image_height": 480})
    assert "is for 640x480, not for 320x240" in str(run(stated, video, "--size", "320x240").exception)


def test_a_broken_sidecar_or_video_is_named_and_left(video: Path, colmap: Path, tmp_path: Path) -> None:
    sidecar = video.with_name("v.egoworld.json")
    sidecar.write_text("{")
    assert isinstance(run(colmap, video).exception, BadSidecar)
    assert sidecar.read_text() == "{"
    shutil.copy(colmap, tmp_path / "w.mp4")
    assert isinstance(run(colmap, tmp_path / "w.mp4").exception, EgoworldError)
