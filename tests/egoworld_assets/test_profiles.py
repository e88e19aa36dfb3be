"""The profile goes with a run as a value: by its tag, which re-executions keep, or by the resource's configuration."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets.resources import PROFILE_TAG, Egoworld, chosen_profile, profile_tags
from egoworld_ops import models, operators
from egoworld_ops.errors import BadSettings
from egoworld_ops.execution.identity import backend_of, operator_of
from egoworld_ops.settings import PROFILES, load_settings
from gpu_workers import broker_pool
from tests.conftest import ROOT


def _run(tags: dict[str, str], job: str = "__ASSET_JOB", profile: str | None = None) -> dg.DagsterRun:
    config = {"resources": {"egoworld": {"config": {"profile": profile}}}} if profile else {}
    return dg.DagsterRun(job_name=job, tags=tags, run_config=config)


def test_the_tag_of_a_run_names_its_profile() -> None:
    assert chosen_profile(None, None) is None
    assert chosen_profile("laptop", None) == "laptop"
    assert chosen_profile(None, _run({PROFILE_TAG: "h100x4"})) == "h100x4"
    assert chosen_profile("h100x4", _run({PROFILE_TAG: "h100x4"}, profile="h100x4")) == "h100x4"
    with pytest.raises(BadSettings, match=r"egoworld/profile.*laptop.*h100x4"):
        chosen_profile("h100x4", _run({PROFILE_TAG: "laptop"}, profile="h100x4"))


def test_a_profile_that_a_re_execution_would_lose_is_refused() -> None:
    of_backfill = {"dagster/backfill": "abc"}
    assert chosen_profile("h100x4", _run(of_backfill, profile="h100x4")) == "h100x4"
    assert chosen_profile("h100x4", _run(of_backfill, "process_videos")) == "h100x4", "that of the deployment is never lost"
    with pytest.raises(BadSettings, match="egoworld/profile=h100x4"):
        chosen_profile("h100x4", _run(of_backfill, "process_videos", "h100x4"))


def test_the_path_of_a_profile_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile_tags(None) == {}
    assert profile_tags("laptop") == {PROFILE_TAG: "laptop"}
    assert profile_tags("mine.toml") == {PROFILE_TAG: str(tmp_path / "mine.toml")}


def test_a_step_reads_the_profile_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("sample_stride = 7\n")
    seen = []

    @dg.op
    def look(egoworld: Egoworld) -> None:
        seen.append(egoworld.settings.sample_stride)

    @dg.job(resource_defs={"egoworld": Egoworld()})
    def looking() -> None:
        look()

    for tags in (profile_tags(str(tmp_path / "mine.toml")), {}):
        assert looking.execute_in_process(tags=tags).success
    assert seen == [7, 1]


def test_the_console_of_a_run_shows_no_events_of_dagster(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)

    @dg.op
    def speak(context: dg.OpExecutionContext) -> None:
        context.log.info("said by the asset")

    @dg.job
    def speaking() -> None:
        speak()

    with dg.DagsterInstance.from_config(str(tmp_path)) as dagster:
        assert speaking.execute_in_process(instance=dagster).success
    said = capfd.readouterr().err
    assert "said by the asset" in said
    assert "DEBUG" not in said


def test_operators_are_named_by_their_options() -> None:
    from egoworld_ops import operators
    from egoworld_ops.execution.task import ClipTask

    options = operators.check_options(operators.load("masks", "sam2"), "masks", "sam2", {"model": "small"})
    task = ClipTask.__new__(ClipTask)
    object.__setattr__(task, "stage", "masks")
    object.__setattr__(task, "backend", "sam2")
    named = broker_pool._named(task, options)
    assert named.startswith("masks.sam2")
    assert "#" not in named


@pytest.mark.parametrize(("profile", "card_mb", "stated_gb", "commercial"), [("gpu", 16_000, 12, True), ("h100x4", 80_000, 22, False)])
def test_a_profile_for_gpus_fits_its_card_and_says_what_memory_and_licences_it_needs(
    profile: str, card_mb: int, stated_gb: int, commercial: bool
) -> None:
    """All backends at once in one worker, as a worker of the pool may hold them."""
    settings = load_settings(profile)
    chosen = [operator_of(stage, settings) for stage in operators.stages()]
    on_gpu = [
        (backend_of(s, settings), o.memory_mb(given))
        for s, (o, given) in zip(operators.stages(), chosen, strict=True)
        if o.device(given) == "cuda"
    ]
    planned_mb = sum(mb for _, mb in on_gpu)
    assert planned_mb <= card_mb
    head = (PROFILES / f"{profile}.toml").read_text().partition("[")[0]
    each = ", ".join(f"{backend} {mb / 1000:.1f} GB" for backend, mb in on_gpu)
    assert f"Device memory planned: {each}; a worker with all of them: {stated_gb} GB." in head
    assert round(planned_mb / 1000) == stated_gb
    free = all(models.weight(name).licence.commercial == "yes" for operator, options in chosen for name in operator.weights(options))
    assert free is commercial
    assert ("Licence class: commercial" in head) is (settings.policy.licences == "commercial") is commercial


def test_the_laptops_profile_needs_no_device_and_only_weights_for_any_use() -> None:
    settings = load_settings("laptop")
    chosen = [operator_of(stage, settings) for stage in operators.stages()]
    assert {(operator.device(options), operator.memory_mb(options)) for operator, options in chosen} == {("cpu", 0)}
    assert {models.weight(name).licence.commercial for operator, options in chosen for name in operator.weights(options)} == {"yes"}
    assert "Licence class: commercial" in (PROFILES / "laptop.toml").read_text()
