"""Profiles are complete and typed, and unknown names in them are refused."""

import os
from pathlib import Path

import pytest

from egoworld_assets.chain.configuration import frozen_configuration
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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EGOWORLD_CAMERA_REQUIRE_KNOWN", "EGOWORLD_CAMERA__REQUIRE_KNOWN"),
        ("EGOWORLD_LAEK", "EGOWORLD_LAKE"),
        ("EGOWORLD_SAMPLE_STRID", "EGOWORLD_SAMPLE_STRIDE"),
        ("EGOWORLD__LAKE", "EGOWORLD_LAKE"),
        ("egoworld_rwa", "EGOWORLD_RAW"),
        ("EGOWORLD_PROFIL", "EGOWORLD_PROFILE"),
        ("EGOWORLD_SCENE__DETECTOR", "EGOWORLD_SCENES__DETECTOR"),
        ("EGOWROLD_LAKE", "EGOWORLD_LAKE"),
        ("EGO_WORLD_LAKE", "EGOWORLD_LAKE"),
        ("EGOWORLD_ZEBRA", "read by nobody"),
        ("EGOWORLD_LAKE__ROOT", "EGOWORLD_LAKE"),
        ("EGOWORLD_POOL__START__LATE", "EGOWORLD_POOL__START"),
        ("EGOWORLD_PROFILE__NAME", "EGOWORLD_PROFILE"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(BadSettings, match=f"environment variable {name}: .*{meant}"):
        load_settings("laptop")


@pytest.mark.parametrize("name", ["EGOWORLD_WEIGHTS", "EGOWORLD_WORKER_OF", "EGOTISM", "EGOWORLDLY", "egoworld_sample_stride"])
def test_a_variable_that_is_read_or_not_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    load_settings("laptop")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EGOWORLD_SCENES__DETECTR", "content", "Did you mean detector"),
        ("EGOWORLD_SCENES__DETECTOR", "magic", "adaptive"),
        ("EGOWORLD_SCENES", '{"max_clip_s": -1}', "greater than 0"),
        ("EGOWORLD_SCENES", "content", "no JSON"),
        ("EGOWORLD_SAMPLE_STRIDE", "many", "integer"),
        ("EGOWORLD_RETRY_AFTER_S", "5, 10", "no JSON"),
        ("EGOWORLD_STAGES__MAKS__BACKEND", "classical", "no stage 'maks'"),
        ("EGOWORLD_LAKE", "", "setting lake: is empty"),
        ("EGOWORLD_RAW", " ", "is empty"),
        ("EGOWORLD_LAKE", "s3://bucket/lake", "is a URL"),
        ("EGOWORLD_POOL__FOLDER", "~nobody-of-that-name/pool", "home"),
    ],
)
def test_an_error_in_a_variable_names_the_variable_and_not_the_profile(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"environment variable {name}.*{said}") as caught:
        load_settings("laptop")
    assert "laptop.toml" not in str(caught.value)


def test_a_lake_where_duckdb_can_open_no_database_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "what?" / "lake"))
    with pytest.raises(BadSettings, match=r"has a \? in its path.*another folder"):
        load_settings("laptop")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["sam2", "classical"], ids=["chosen", "not chosen"])
def test_a_misspelt_option_of_a_backend_is_named_whether_it_is_chosen_or_not(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("EGOWORLD_STAGES__MASKS__BACKEND", backend)
    monkeypatch.setenv("EGOWORLD_STAGES__MASKS__SAM2__MODL", "tiny")
    with pytest.raises(BadSettings, match=r"environment variable EGOWORLD_STAGES__MASKS__SAM2__MODL, setting .*Did you mean model\?"):
        frozen_configuration(load_settings("laptop"))


def test_an_error_in_the_profile_is_not_laid_on_a_variable_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGOWORLD_STAGES__MASKS__BACKEND", "classical")
    monkeypatch.setenv("EGOWORLD_SCENES__DETECTOR", "content")
    path = tmp_path / "p.toml"
    for text in ("[stages.maks]\nbackend = 'classical'", "[scenes]\nmax_clp_s = 3"):
        path.write_text(text)
        with pytest.raises(BadSettings, match=r"p\.toml, setting"):
            load_settings(path)


def test_a_byte_order_mark_and_a_tilde_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EGOWORLD_RAW", raising=False)
    (tmp_path / "p.toml").write_bytes(b"\xef\xbb\xbfraw = '~/raw'\n[stages.masks]\nbackend = 'classical'\npython = '~/bin/python'\n")
    monkeypatch.setenv("EGOWORLD_LAKE", "~/lake")
    monkeypatch.setenv("EGOWORLD_POOL__FOLDER", "~/pool")
    settings = load_settings("~/p.toml")
    assert (settings.raw, settings.lake, settings.pool.folder) == (tmp_path / "raw", tmp_path / "lake", tmp_path / "pool")
    assert settings.stages["masks"].python == str(tmp_path / "bin" / "python")


@pytest.mark.parametrize(("base", "folder"), [("/run/user/7", "/run/user/7/egoworld-pool"), ("rel", f"/tmp/egoworld-pool-{os.getuid()}")])
def test_the_pools_folder_is_in_the_runtime_folder_where_that_is_one(monkeypatch: pytest.MonkeyPatch, base: str, folder: str) -> None:
    monkeypatch.delenv("EGOWORLD_POOL__FOLDER", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", base)
    assert load_settings("laptop").pool.folder == Path(folder)
