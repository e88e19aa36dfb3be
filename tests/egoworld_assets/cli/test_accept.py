"""`egoworld accept` measures what it says, calls no random network good, and says of what cannot run why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from egoworld_assets.acceptance import accuracy, comparing, measuring, resources
from egoworld_assets.acceptance.accuracy import Verdict
from egoworld_assets.acceptance.report import Acceptance
from egoworld_assets.chain import pipeline
from egoworld_assets.cli.group import INTERRUPTED
from egoworld_assets.cli.main import egoworld
from egoworld_ops.contract import schema
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.synthetic import load_truth
from egoworld_ops.vision import rle
from gpu_workers.__main__ import pool
from tests.conftest import ROOT
from tests.real_chain import Kitchen
from tests.rows import sample_row

TRUTH = ROOT / "examples" / "synthetic" / "kitchen.truth"
RANDOM = """
sample_stride = 56
[pool]
kind = "inline"
[stages.hand_pose]
backend = "hamer"
fallback = "mediapipe"
[stages.hand_pose.hamer]
device = "cpu"
random_weights_seed = 3
"""


def accept(out: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(egoworld, ["accept", "--out", str(out), *arguments])
    assert "Traceback" not in done.output
    return done


def test_a_random_network_is_measured_and_never_called_good(tmp_path: Path) -> None:
    profile = tmp_path / "random.toml"
    profile.write_text(RANDOM)
    done = accept(tmp_path / "out", "--profile", str(profile))
    assert done.exit_code == 1, done.output
    said = json.loads((tmp_path / "out" / "acceptance.json").read_text())
    assert not said["accepted"]
    assert "hand_pose.hamer has random numbers in the place of weights" in said["against"]
    verdicts = {figure["name"]: figure["verdict"] for figure in said["accuracy"]}
    assert verdicts["hand joints, image"] == verdicts["held by which hand, right"] == "RANDOM"
    assert verdicts["hand mask IoU"] != "RANDOM", "it rests on no pose"
    stages = {stage["stage"]: stage for stage in said["stages"]}
    assert all(stage["clips"] == 3 and stage["repeated"] for stage in stages.values()), stages
    assert stages["hand_pose"]["frames"] == len(range(0, 168, 56))
    [variant] = said["variants"]
    assert (variant["option"], variant["value"]) == ("precision", "bfloat16")
    assert variant["compared"]["rows"] > 0
    assert said["chain"]["equal"]
    assert said["chain"]["failed"] == 0
    assert said["decoding"]["frames_per_s"] > 1
    assert said["decoding"]["gpu_frames_per_s"] or "CUDA decodes nothing here" in said["decoding"]["reason"]
    assert all(Path(picture).is_file() for picture in said["pictures"])
    assert "hand_pose    hamer RANDOM" in (tmp_path / "out" / "acceptance.txt").read_text()


def test_ctrl_c_says_what_was_measured_and_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "random.toml"
    profile.write_text(RANDOM)

    def until_the_second(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(stage="detections", backend="mediapipe", failures=[], seconds=0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "stages", until_the_second)
    monkeypatch.setattr(pipeline, "process", lambda *_: iter(()))  # no manifest
    done = accept(tmp_path / "out", "--profile", str(profile))
    assert done.exit_code == INTERRUPTED
    assert done.stderr.splitlines()[-1] == (
        f"interrupted: measured were detections; nothing is accepted, and no report written. Remove {tmp_path / 'out'}, then run it again"
    )
    assert not (tmp_path / "out" / "acceptance.json").exists()


@pytest.mark.parametrize("command", [["verify"], ["models", "verify"], ["pool", "status"]])
def test_ctrl_c_ends_every_command_with_one_line_and_the_status_of_shells(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    group: Any = pool if command[0] == "pool" else egoworld
    for name in command[command[0] == "pool" :]:
        found, group = group, group.commands[name]
    assert isinstance(found, click.Group)
    monkeypatch.setattr(group, "callback", pressed)
    done = CliRunner().invoke(egoworld, command)
    assert (done.exit_code, done.stderr.strip()) == (INTERRUPTED, f"interrupted: egoworld {command[0]} did not finish; run it again")


def test_what_cannot_run_is_named_with_the_cure_and_what_needs_it_is_not_blamed(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text('sample_stride = 60\n[stages.masks]\nbackend = "sam2"\n[stages.masks.sam2]\nmodel = "small"\ndevice = "cpu"\n')
    folder = tmp_path / "a copy of the scene, and an empty file"
    folder.mkdir()
    shutil.copyfile(TRUTH.with_suffix(".mp4"), folder / "again.mp4")
    (folder / "empty.mp4").touch()
    done = accept(tmp_path / "out", "--profile", str(path), str(folder / "again.mp4"), str(folder))
    assert done.exit_code == 1
    assert done.stderr.count("left out: ") == 1
    assert "empty.mp4: has zero bytes" in done.stderr
    against = [line for line in done.output.splitlines() if line.startswith("AGAINST")]
    assert sum("egoworld models fetch" in line for line in against) == 1, done.output
    [blocked] = [line for line in against if "nothing is known of these" in line]
    assert {"depth", "object_pose", "agreement"} <= set(blocked.removeprefix("AGAINST").partition(":")[0].replace(",", "").split()), against
    assert json.loads((tmp_path / "out" / "acceptance.json").read_text())["chain"] is None


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for arguments, reason in (
        ((str(tmp_path / "bad.mp4"),), "bad.mp4"),
        (("--profile", "laptopp"), "laptop"),
        ((str(tmp_path / "away.mp4"),), "away.mp4"),
    ):
        done = accept(tmp_path / f"out-{reason}", *arguments)
        assert done.exit_code == 1
        assert reason in str(done.exception)
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path / "no weights"))
    done = accept(tmp_path / "out", "--profile", "gpu")
    assert "Run: egoworld models fetch owlv2" in str(done.exception)
    assert not (tmp_path / "out").exists(), "the next try finds its folder free"
    (tmp_path / "there").mkdir()
    assert "is there already" in str(accept(tmp_path / "there").exception)


@pytest.fixture(scope="module")
def kitchen_tables(kitchen_chain: Kitchen) -> dict[str, pa.Table]:
    return dict(kitchen_chain.tables)


def verdicts(tables: dict[str, pa.Table], settings: Settings) -> dict[str, Verdict]:
    return {judged.figure.name: judged.verdict for judged in accuracy.judged(tables, load_truth(TRUTH), settings)}


def test_what_is_known_is_judged_and_what_is_not_is_unproven(kitchen_tables: dict[str, pa.Table]) -> None:
    laptop = load_settings("laptop")
    found = verdicts(kitchen_tables, laptop)
    assert found["hand mask IoU"] is found["object translation"] is Verdict.OK
    assert found["moving or still, right"] is Verdict.ONLY_SAID
    heavy = laptop.stages["masks"].model_copy(update={"backend": "sam2"})
    found = verdicts(kitchen_tables, laptop.model_copy(update={"stages": {**laptop.stages, "masks": heavy}}))
    assert found["hand mask IoU"] is found["object translation"] is Verdict.UNPROVEN
    assert found["hand joints, image"] is Verdict.OK
    moved = kitchen_tables["hand_pose"].to_pylist()
    for row in moved:
        row["joints_px"] = (np.array(row["joints_px"]) + 20).tolist()
    found = verdicts({**kitchen_tables, "hand_pose": schema.from_rows("hand_pose", moved)}, laptop)
    assert found["hand joints, image"] is Verdict.OUTSIDE
    nothing = {**kitchen_tables, "hand_pose": schema.empty("hand_pose")}
    [lost] = [j for j in accuracy.judged(nothing, load_truth(TRUTH), laptop) if j.figure.name == "hand joints, image"]
    assert (lost.figure.median, lost.figure.tail, lost.verdict) == (np.inf, np.inf, Verdict.OUTSIDE)
    figures = list(accuracy.judged(kitchen_tables, load_truth(TRUTH), laptop))
    outside = replace(figures[0], verdict=Verdict.OUTSIDE)
    assert Acceptance({}, judged=figures).against() == []
    assert Acceptance({}, judged=[*figures, outside]).against() == [f"manifest: {outside.figure.name} is outside its limit"]


def test_tables_are_compared_row_by_row_in_the_units_of_their_columns() -> None:
    square = np.zeros((10, 10), bool)
    square[2:8, 2:8] = True
    shifted = np.roll(square, 3, 1)
    row = sample_row("masks", 0) | {"rle": rle.encode(square), "area_px": 36.0}
    other = row | {"frame_index": row["frame_index"] + 1}
    first = schema.from_rows("masks", [row, other])
    assert comparing.compared("masks", first, first).equal
    found = comparing.compared("masks", first, schema.from_rows("masks", [row | {"rle": rle.encode(shifted), "area_px": 30.0}]))
    assert (found.rows, found.only_first, found.only_second) == (1, 1, 0)
    apart = {column.column: column for column in found.columns}
    assert apart["rle"].maximum == pytest.approx(1 - 18 / 54)
    assert apart["rle"].rows == 1
    unit = next(column.unit for column in schema.table("masks").columns if column.name == "area_px")
    assert (apart["area_px"].median, apart["area_px"].unit) == (6.0, unit)
    assert set(apart) == {"rle", "area_px"}


def test_memory_that_was_taken_and_let_go_is_seen() -> None:
    with resources.used() as nothing:
        pass
    with resources.used() as much:
        np.ones(40_000_000).sum()
    assert nothing.host_mb is not None
    assert much.host_mb is not None
    assert nothing.host_mb < 50
    assert 300 < much.host_mb < 400
