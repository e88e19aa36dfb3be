"""`egoworld doctor` says in plain lines what a machine lacks and how to get it; what it finds never ends in a traceback."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from egoworld_assets.cli.main import egoworld
from egoworld_ops import models
from egoworld_ops.errors import SetupError
from gpu_workers.gpus import Gpu, Nvml, Unreachable
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EGOWORLD_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    (tmp_path / "raw").mkdir()
    return tmp_path


def doctor(profile: str | Path) -> Result:
    done = CliRunner().invoke(egoworld, ["doctor", "--profile", str(profile)])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert "Traceback" not in done.output
    return done


def missing(done: Result) -> dict[str, str]:
    """The parts that are missing, each with what is said of it and what to do."""
    lines = done.output.splitlines()
    return {line.split()[1]: f"{line} {after}" for line, after in pairwise(lines) if line.startswith("MISSING")}


def test_a_laptop_that_lacks_nothing(place: Path) -> None:
    done = doctor("laptop")
    assert done.exit_code == 0, done.output
    for part in ("python", "backends", "weights", "licences", "gpu", "memory", "disk", "decoder", "limits", "shm"):
        assert f"ok       {part}" in done.output
    assert "0 missing" in done.output


def test_weights_that_are_not_here_name_the_command_or_the_publishers_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(place / "weights"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    done = doctor("laptop")
    assert done.exit_code == 1
    assert "egoworld models fetch" in missing(done)["weights"]
    for name in models.GROUPS["mediapipe-hands"]:
        monkeypatch.setitem(
            models.REGISTRY, name, replace(models.weight(name), source=models.HubFile("owner/net", "a", "main", gated=True))
        )
    assert "huggingface.co/owner/net and accept its terms, make a token" in missing(doctor("laptop"))["weights"]


def test_a_gpu_that_is_not_here_is_missing_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = missing(doctor("h100x4"))["gpu"]
    assert "detections.sam3, masks.sam2, hand_pose.hamer, depth.moge2 are to run on one" in said
    assert "Unset CUDA_VISIBLE_DEVICES" in said


def test_a_card_that_is_too_small_and_a_driver_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's answers are made up; what torch says is real: here it finds no GPU."""
    monkeypatch.setattr(Nvml, "discover", lambda nvml: ([Gpu(0, "GPU-1", "Tiny", 512)], [Unreachable(1, None, "GPU is lost")]))
    done = doctor("h100x4")
    assert "the largest card has 512 MB" in missing(done)["gpu"]
    assert "note     gpu          GPU 1 is there and does not answer: GPU is lost" in done.output

    def refuse(nvml: Nvml) -> NoReturn:
        raise SetupError("the NVIDIA driver", "NVML says: Driver/library version mismatch", "Restart the host")

    monkeypatch.setattr(Nvml, "discover", refuse)
    assert "Restart the host" in missing(doctor("h100x4"))["gpu"]
    assert "gpu" not in missing(doctor("laptop"))


def test_settings_that_cannot_be_read(place: Path) -> None:
    broken = place / "mine.toml"
    for content in ("[stages", "nonsense = 1", '[stages.masks]\nbackend = "nonsense"'):
        broken.write_text(content)
        done = doctor(broken)
        assert done.exit_code == 1
        assert missing(done), done.output
    assert "nonsense" in missing(doctor(broken))["backends"]
    assert "settings" in missing(doctor("no-such-profile"))


def test_another_interpreter_and_a_licence_that_does_not_allow_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = place / "mine.toml"
    mine.write_text('[stages.masks]\nbackend = "classical"\npython = "/nowhere/python"\n[policy]\nlicences = "commercial"')
    name = "palm_detection_full"
    monkeypatch.setitem(models.REGISTRY, name, replace(models.weight(name), licence=models.Licence("CC-BY-NC-4.0", "https://x", "no")))
    found = missing(doctor(mine))
    assert "/nowhere/python, in which masks.classical is to run" in found["interpreter"]
    assert f"{name} (CC-BY-NC-4.0" in found["licences"]


def test_intrinsics_are_asked_for_where_they_are_not_known(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "examples/synthetic/kitchen.mp4", place / "raw")
    assert "note     intrinsics" in doctor("laptop").output
    monkeypatch.setenv("EGOWORLD_CAMERA__REQUIRE_KNOWN", "true")
    assert "egoworld calibrate import" in missing(doctor("laptop"))["intrinsics"]
    sidecar = place / "raw" / "kitchen.egoworld.json"
    sidecar.write_text("{")
    assert "note     sidecar" in doctor("laptop").output
    shutil.copy(ROOT / "examples/synthetic/kitchen.egoworld.json", sidecar)
    assert "no sidecar states the intrinsics" not in doctor("laptop").output


def test_a_look_that_fails_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> NoReturn:
        raise RuntimeError("no such disk")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    done = doctor("laptop")
    assert "no such disk" in missing(done)["disk"]
    assert "ok       decoder" in done.output


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU here")
def test_a_gpu_that_is_to_decode_and_is_not_there_is_worth_knowing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pool.decode_on" not in doctor("laptop").output
    monkeypatch.setenv("EGOWORLD_POOL__DECODE_ON", "cuda")
    assert "note     decoder      pool.decode_on is cuda, and CUDA decodes nothing here" in doctor("laptop").output


def test_all_weights_of_a_profile_come_at_once_and_one_that_cannot_come_stops_no_other(place: Path) -> None:
    done = CliRunner().invoke(egoworld, ["models", "fetch", "--profile", "laptop"])
    assert done.exit_code == 0, done.output
    assert "hand_landmark_full.tflite" in done.output
    done = CliRunner().invoke(egoworld, ["models", "fetch", "mano_right", "hand_landmark_full"])
    assert done.exit_code == 1
    assert "hand_landmark_full.tflite" in done.output
    assert "https://mano.is.tue.mpg.de" in done.output
    for nothing_or_both in ([], ["hand_landmark_full", "--profile", "laptop"]):
        assert CliRunner().invoke(egoworld, ["models", "fetch", *nothing_or_both]).exit_code == 2
