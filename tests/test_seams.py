"""Plug-ins from outside the repository: a package in `tests/outside` uses each seam, found by its entry point only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import brokers
from tests.egoworld_ops import media
from tests.packages import install, install_outside, python

FRAMES = 24
CHAIN = """
import json, sys
from pathlib import Path
from egoworld_assets.chain import configuration, pipeline
from egoworld_ops.raw import register
from egoworld_ops.settings import PoolSettings, SceneSettings, StageSettings, load_settings
from gpu_workers.pool import make

root, pool, last = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
settings = load_settings("laptop")
stages = settings.stages | {"detections": StageSettings(backend="still")}
settings = settings.model_copy(update={"lake": root / "lake", "raw": root, "stages": stages, "pool": PoolSettings(**pool)})
settings = settings.model_copy(update={"scenes": SceneSettings(max_clip_s=0.5, overlap_s=0.1)})
[video_id] = register.register(settings.lake, [root / "a.mp4"]).video_ids
run = configuration.open_run(settings)
results = list(pipeline.process(run, [video_id], settings, make(settings.pool, "test"), pipeline.Part(last=last)))
said = [(stage, r.clip_id, r.state, str(r.error or "")) for stage, r in results]
"""
READ = """
from egoworld_ops.files.tables import provenance_at, read_table
def rows(stage):
    return [(provenance_at(p), read_table(p, stage).to_pylist()) for p in sorted(run.video_folder(video_id).glob(f"clip_id=*/{stage}.parquet"))]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install_outside(folder, "backend", "stage", "robot", "pool", "export")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    media.make(tmp_path / "a.mp4", FRAMES, size=(160, 120), picture=media.scenes([]))
    return tmp_path


def test_a_backend_a_stage_a_pool_and_an_export_from_outside(site: Path, root: Path) -> None:
    code = f"""{CHAIN}{READ}
import duckdb
import counted_pool
from egoworld_ops import exports, operators
from egoworld_ops.contract import quality, references, schema, validation
from egoworld_ops.exports.base import rows_of
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.report.contract_page import contract_page

files = sorted(run.video_folder(video_id).glob("clip_id=*/contact.parquet"))
with duckdb.connect() as connection:
    measured = quality.measure(connection, "contact", files)
detected, covered = rows("detections"), rows("contact")
by_clip = {{stage: schema.from_rows(stage, found[0][1]) for stage, found in (("detections", detected), ("contact", covered))}}
dangling = schema.from_rows("contact", [row | {{"track_id": 11}} for row in covered[0][1]])
released = make_release(run, settings.release).manifest.rows
out = root / "out"
out.mkdir()
exports.load("row_counts")(rows_of(run), out)
with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
    [[seen]] = connection.execute("SELECT count(*) FROM contact").fetchall()
print(json.dumps({{
    "said": said, "given": counted_pool.GIVEN, "measured": measured, "released": released, "seen": seen,
    "verdicts": quality.verdicts("contact", {{"covered_share_max": 0.9}}, {{}}),
    "references": [[len(list(references.dangling(by_clip))), len(list(references.dangling(by_clip | {{"contact": dangling}})))]],
    "sample": list(validation.violations("contact", schema.from_rows("contact", [covered[0][1][0] | operators.stages()["contact"].sample[0]]))),
    "exported": (out / "rows.txt").read_text(), "page": "## contact" in contract_page(),
    "packages": json.loads((run.path / "run.json").read_text())["packages"],
    "versions": [provenance["identity"]["operator"]["version"] for provenance, _ in (*detected, *covered)],
    "sizes": [[len(found) for _, found in stage] for stage in (detected, covered)],
}}))
"""
    seen = json.loads(python(code, site, arguments=(str(root), json.dumps({"kind": "counted", "options": {"threads": 2}}), "contact")))
    assert [(stage, state, error) for stage, _, state, error in seen["said"]] == [
        ("manifest", "computed", ""),
        *[(stage, "computed", "") for stage in ("detections", "contact") for _ in range(2)],
    ]
    assert seen["given"] == ["detections.still"] * 2 + ["contact.share"] * 2
    assert seen["measured"] == {"covered_share_max": pytest.approx(30 * 40 / (160 * 120))}
    assert seen["verdicts"] == ["covered_share_max is 0.9, want at most 0.5: a thing as large as the picture is none"]
    assert seen["references"] == [[0, 1]]
    assert seen["sample"] == []
    assert seen["sizes"][0] == seen["sizes"][1]
    assert sum(seen["sizes"][0]) > FRAMES, "clips overlap"
    assert seen["released"]["contact"] == FRAMES
    assert seen["seen"] in (FRAMES, sum(seen["sizes"][1]))
    assert "contact 24\n" in seen["exported"]
    assert seen["page"]
    assert seen["packages"]["outside-backend"] == seen["packages"]["outside-stage"] == "1.0"
    assert all(version.startswith("1+") for version in seen["versions"]), "the digest covers the code of packages"


def test_dagster_has_an_asset_and_checks_for_a_stage_from_outside_and_loads_nothing_heavy(site: Path) -> None:
    code = """
import json, sys
from egoworld_assets.definitions import defs
asset = next(a for a in defs.assets if a.key.path == ["contact"])
checks = sorted(spec.name for c in defs.asset_checks for spec in c.check_specs if spec.asset_key.path == ["contact"])
columns = asset.metadata_by_key[asset.key]["dagster/column_schema"]
heavy = [m for m in ("torch", "cv2", "av", "duckdb", "contact_stage.share", "still_hands") if m in sys.modules]
print(json.dumps([[d.path[-1] for d in asset.keys_by_input_name.values()], checks, [c.name for c in columns.columns][-2:], heavy]))
"""
    deps, checks, columns, heavy = json.loads(python(code, site).splitlines()[-1])
    assert deps == ["detections"]
    assert {"contact_complete", "contact_contract", "contact_quality"} <= set(checks)
    assert columns == ["covered_share", "backend"]
    assert heavy == []


def test_a_robot_from_outside_is_mapped_to_and_drawn(site: Path) -> None:
    code = """
import json
from fractions import Fraction
from pathlib import Path
import numpy as np
from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.execution.identity import operator_identity
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.report import _robot_view
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.settings import StageSettings, load_settings
from egoworld_ops.types import Camera, Clip
from egoworld_ops.video.sidecar import Sidecar
from tests.rows import fusion_row

# a flat hand: fingers side by side along y, each of four joints along z
joints = np.array([[0, 0, 0]] + [[0, 0.02 * f - 0.04, 0.09 + 0.03 * j] for f in range(5) for j in range(4)], float)
dex = operators.load("mapping", "dex")
settings = dex.Settings(robot="claw")
operator = dex(settings, 1)
pose = fusion_row(0, hand="right", joints_wrist_m=joints)
clip = Clip(pose["video_id"], pose["clip_id"], Path("a.mp4"), "0" * 64, 0, 10, 0, 10, 0.0, 1.0, Fraction(10), 640, 480)
item = ClipInput(clip, {"fusion": schema.from_rows("fusion", [pose])}, Sidecar(), Camera(1, 1, 0, 0, 640, 480, "file"), 1, lambda: iter(()))
rows = operator.run(item)
[row] = rows.to_pylist()
inset = np.zeros((120, 160, 3), np.uint8)
_robot_view.draw(inset, ClipLayers({"mapping": rows}).frame(0).robots[0], (255, 0, 0))
stages = {"mapping": StageSettings(backend="dex", dex={"robot": "claw"})}
identity = operator_identity("mapping", load_settings("laptop").model_copy(update={"stages": stages}))
wrong = list(validation.violations("mapping", rows))
print(json.dumps([row["joint_names"], row["converged"], row["reason"], int((inset > 0).any(2).sum()), wrong, identity["brought"]]))
"""
    joints, converged, reason, painted, wrong, brought = json.loads(python(code, site))
    assert joints == ["finger_1", "finger_2", "thumb_1", "thumb_2"]
    assert converged, reason
    assert wrong == []
    assert painted > 50
    assert brought["robot"]["right"]["hand_length_m"] == 0.2
    assert "urdf" not in brought["robot"]["right"], "where it lies decides nothing"
    assert len(brought["robot"]["right"]["urdf_sha256"]) == 64


def test_workers_find_packages_and_one_that_is_warm_leaves_when_the_code_of_its_operator_changes(tmp_path: Path, root: Path) -> None:
    """If another stage's backend is edited, the worker goes on; if its own is, the next run gets results of the new code."""
    site = tmp_path / "site"
    install_outside(site, "backend", "stage")
    environment = {"PYTHONPATH": str(site)}
    workers, widths = [], []
    with brokers.broker("--workers", "1", environment=environment) as pool:
        asked = {"kind": "broker", "folder": str(pool.folder), "start": False, "lost_after_s": 5.0}
        code = f"{CHAIN}{READ}\nprint(json.dumps([said, [row for _, found in rows('detections') for row in found]]))"
        for edited, old, new in (
            ("", "", ""),
            ("contact_stage/share.py", "Divides areas", "Divides widths by widths"),
            ("still_hands.py", "WIDTH_PX = 30.0", "WIDTH_PX = 20.0"),
        ):
            if edited:
                path = site / edited
                path.write_text(path.read_text().replace(old, new))
            (root / f"lake {len(workers)}").mkdir()
            (root / "lake").unlink(missing_ok=True)
            (root / "lake").symlink_to(root / f"lake {len(workers)}")
            said, found = json.loads(python(code, site, arguments=(str(root), json.dumps(asked), "contact")))
            assert {state for _, _, state, _ in said} == {"computed"}, said
            workers.append({row["label"] for row in found})
            widths.append({row["box_px"][2] for row in found})
    assert widths == [{30.0}, {30.0}, {20.0}]
    assert workers[0] == workers[1]
    assert not workers[1] & workers[2]


def test_what_is_broken_or_clashes_is_named_with_a_cure_and_the_rest_is_there(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install_outside(site, "stage", "backend")
    (site / "raises.py").write_text("raise RuntimeError('no such card')\n")
    (site / "empty.py").write_text("")
    own = (site / "contact_stage" / "__init__.py").read_text()
    (site / "renamed.py").write_text(own)
    (site / "without_frames.py").write_text(
        own.replace('"frame_index", "track_id")', '"track_id", "frame_index")').replace('"contact"', '"loose"')
    )
    deaf = own.replace('("detections",)', '("smells",)').replace('Parent("detections"', 'Parent("smells"')
    (site / "reads_nothing.py").write_text(deaf.replace('"contact"', '"smelling"'))
    for package, group, line in (
        ("raising", "backends", "masks.raising = raises"),
        ("hollow", "backends", "masks.hollow = empty"),
        ("lost", "backends", "smells.any = empty"),
        ("usurper", "backends", "masks.classical = still_hands"),
        ("twin-a", "backends", "masks.twin = still_hands"),
        ("twin-b", "backends", "masks.twin = still_hands"),
        ("misnamed", "stages", "other = renamed"),
        ("loose", "stages", "loose = without_frames"),
        ("deaf", "stages", "smelling = reads_nothing"),
        ("gone", "stages", "gone = nowhere.at.all"),
        ("table", "stages", "videos = contact_stage"),
        ("robot", "robots", "robot = empty"),
        ("format", "exports", "format = empty"),
    ):
        install(site, package, {f"egoworld.{group}": line})
    code = """
import json
from click.testing import CliRunner
from egoworld_assets.cli.main import egoworld
from egoworld_ops import operators, robots
from egoworld_ops.errors import EgoworldError
from egoworld_ops.settings import load_settings
listed = CliRunner().invoke(egoworld, ["plugins"])
def why(ask, *arguments):
    try:
        return str(ask(*arguments))
    except EgoworldError as error:
        return str(error)
asked = [why(operators.load, "masks", "raising"), why(operators.load, "other", "x"), why(robots.find_robot, "robot", {})]
load_settings("laptop")
print(json.dumps([listed.exit_code, listed.stdout, asked, list(operators.stages()), operators.backends("masks"), operators.backends("detections")]))
"""
    status, listed, asked, stages, masks, detections = json.loads(python(code, site).splitlines()[-1])
    assert status == 1
    said = {line.split()[1]: line for line in listed.splitlines() if line.startswith("egoworld.")}
    for name, part in {
        "masks.raising": "RuntimeError: no such card",
        "masks.hollow": "no class `Backend` that is an `Operator`",
        "smells.any": "its name must be `stage.backend`, with one of the stages",
        "masks.classical": "'masks.classical' is the name of a part of egoworld, which stays",
        "masks.twin": "none of them is taken: twin-a, twin-b",
        "other": "both must have the name of the entry point",
        "loose": "must be made by `schema.per_frame`",
        "smelling": "it reads smells: no such stage",
        "gone": "ModuleNotFoundError",
        "videos": "'videos' is the name of a part of egoworld",
        "robot": "is no `egoworld_ops.robots.Robot`",
        "format": "has no function `export`",
    }.items():
        assert part in said[name], said[name]
        assert "Mend or uninstall the package" in said[name]
    assert said["contact"].endswith("ok")
    assert said["detections.still"].endswith("ok")
    assert "no such card" in asked[0]
    assert "must have the name of the entry point" in asked[1]
    assert "is no `egoworld_ops.robots.Robot`" in asked[2]
    assert "contact" in stages
    assert not {"other", "loose", "smelling", "gone", "videos"} & set(stages)
    assert masks == ["classical", "sam2", "sam3", "hollow", "raising"]
    assert "still" in detections
