"""Where only commercial use will do, what rests on other weights is not run, released or exported, and the error says which they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from egoworld_assets.chain import configuration
from egoworld_assets.cli.main import egoworld
from egoworld_ops import models
from egoworld_ops.errors import BadSettings, WeightsMissing
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.models.policy import PolicySettings
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.settings import Settings, StageSettings, load_settings
from tests.lakes import write_video

COMMERCIAL = PolicySettings(licences="commercial")
NOT_COMMERCIAL = models.Licence("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/", "no")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "policy": COMMERCIAL})


def forbid(monkeypatch: pytest.MonkeyPatch, name: str, commercial: str = "no") -> None:
    licence = replace(NOT_COMMERCIAL, commercial=commercial)  # type: ignore[arg-type]
    monkeypatch.setitem(models.REGISTRY, name, replace(models.weight(name), licence=licence))


def test_only_what_is_plainly_allowed_is_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration.open_run(settings)
    for commercial in ("no", "ask"):
        forbid(monkeypatch, "hand_landmark_full", commercial)
        said = rf"backend mediapipe of stage detections: policy.licences is commercial.*hand_landmark_full \(CC-BY-NC-4.0.*: {commercial}"
        with pytest.raises(BadSettings, match=said):
            configuration.open_run(settings)
    configuration.open_run(settings.model_copy(update={"policy": PolicySettings()}))


def test_weights_that_are_ruled_out_are_not_asked_to_be_fetched(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red before: a user of `hamer` was told to fetch it, and refused once it was there."""
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path / "weights"))
    for name, licence in (("hamer", "MIT, commercial use: ask"), ("wilor", "CC-BY-NC-ND-4.0, commercial use: no")):
        hands = settings.model_copy(update={"stages": {"hand_pose": StageSettings(backend=name)}})
        with pytest.raises(BadSettings, match=f"backend {name} of stage hand_pose: ") as ruled_out:
            configuration.open_run(hands)
        assert all(said in str(ruled_out.value) for said in (f"{name} ({licence}", "mano_right (MANO, commercial use: no"))
        if models.weight(name).sha256 is None:
            with pytest.raises(WeightsMissing, match=f"egoworld models fetch {name}"):
                configuration.open_run(hands.model_copy(update={"policy": PolicySettings()}))


def test_a_fallback_counts_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in models.REGISTRY if name.startswith("sam2")]:
        forbid(monkeypatch, name)
    masks = settings.stages["masks"].model_copy(update={"fallback": "sam2"})
    with pytest.raises(BadSettings, match="backend sam2 of stage masks"):
        configuration.open_run(settings.model_copy(update={"stages": {**settings.stages, "masks": masks}}))


@pytest.fixture
def run(settings: Settings) -> Run:
    """A run of the laptop's backends with rows."""
    made = configuration.open_run(settings)
    write_video(made, "a", n_frames=30)
    return made


def test_a_release_names_the_licences_behind_its_rows_and_refuses_what_is_not_allowed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = make_release(run, ReleaseSettings(writers=1), rules=COMMERCIAL)
    said = json.loads((outcome.path / "release.json").read_text())["licences"]
    apache = {
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
        "commercial": "yes",
        "weights": ["hand_landmark_full", "palm_detection_full"],
    }
    assert said == {"Apache-2.0": apache}
    assert "| yes | hand_landmark_full, palm_detection_full |" in (outcome.path / "README.md").read_text()
    before = (outcome.path / "release.json").read_bytes()
    forbid(monkeypatch, "palm_detection_full")
    with pytest.raises(BadSettings, match=rf"run {run.run_id}: .*palm_detection_full \(CC-BY-NC-4.0"):
        make_release(run, ReleaseSettings(writers=1), rules=COMMERCIAL)
    assert (outcome.path / "release.json").read_bytes() == before
    again = make_release(run, ReleaseSettings(writers=1))
    assert again.written == 0, "the rows are the same"
    assert set(again.manifest.licences) == {"Apache-2.0", "CC-BY-NC-4.0"}
    monkeypatch.delitem(models.REGISTRY, "palm_detection_full")
    with pytest.raises(BadSettings, match=r"palm_detection_full \(unknown licence\)"):
        make_release(run, ReleaseSettings(writers=1), rules=COMMERCIAL)


def test_an_export_says_the_licences_and_refuses_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"EGOWORLD_LAKE": str(run.lake.root), "EGOWORLD_POLICY__LICENCES": "commercial"}
    done = CliRunner().invoke(egoworld, ["export", "csv", run.run_id, str(tmp_path / "a")], env=variables)
    assert done.exit_code == 0, done.output
    assert "Apache-2.0 (commercial use: yes): hand_landmark_full, palm_detection_full" in done.output
    forbid(monkeypatch, "palm_detection_full")
    refused = CliRunner().invoke(egoworld, ["export", "csv", run.run_id, str(tmp_path / "b")], env=variables)
    assert isinstance(refused.exception, BadSettings)
    assert not (tmp_path / "b").exists()


def test_another_policy_is_no_other_run(settings: Settings) -> None:
    assert configuration.open_run(settings) == configuration.open_run(settings.model_copy(update={"policy": PolicySettings()}))
    assert len(Lake(settings.lake).runs()) == 1
