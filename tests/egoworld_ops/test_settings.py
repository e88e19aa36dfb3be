"""Profiles are whole, typed and refuse what they do not know."""

from pathlib import Path

import pytest

from egoworld_ops import operators
from egoworld_ops.errors import BadSettings, UnknownBackend
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.settings import PROFILES, load_settings


@pytest.mark.parametrize("name", sorted(p.stem for p in PROFILES.glob("*.toml")))
def test_every_shipped_profile_names_a_backend_for_every_stage(name: str) -> None:
    settings = load_settings(name)
    assert set(settings.stages) == set(operators.stages())
    for stage in operators.stages():
        operator_of(stage, settings)


def test_the_environment_wins_over_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path))
    monkeypatch.setenv("EGOWORLD_SCENES__DETECTOR", "content")
    settings = load_settings("laptop")
    assert settings.lake == tmp_path
    assert settings.scenes.detector == "content"
    assert settings.scenes.max_clip_s == 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "colour"),
        ("[scenes]\nmax_clip_s = -1", "scenes.max_clip_s"),
        ("[scenes]\ndetector = 'magic'", "scenes.detector"),
        ("not toml", "TOML"),
    ],
)
def test_a_bad_profile_is_refused_with_the_setting_at_fault(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(BadSettings) as caught:
        load_settings(path)
    assert said in str(caught.value)


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(BadSettings, match="laptop"):
        load_settings("mainframe")


def test_an_unknown_backend_or_option_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[stages.masks]\nbackend = 'guess'")
    with pytest.raises(UnknownBackend, match="classical"):
        operator_of("masks", load_settings(path))
    path.write_text("[stages.hand_pose]\nbackend = 'mediapipe'\n[stages.hand_pose.mediapipe]\nguess = 1")
    with pytest.raises(BadSettings, match=r"hand_pose\.mediapipe\.guess"):
        operator_of("hand_pose", load_settings(path))


@pytest.mark.parametrize(
    "text",
    [
        "[stages.maks]\nbackend = 'classical'",
        "[stages.masks]\nbackend = 'classical'\nmodel = 'tiny'",
        "[stages.masks]\nbackend = 'sam2'\n[stages.masks.sam_2]\nmodel = 'tiny'",
    ],
)
def test_what_no_stage_would_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(BadSettings, match="stage"):
        load_settings(path)
