"""Drift: clean runs raise nothing, planted changes are found with the first bad video; and the command over a lake."""

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from egoworld_assets.cli.main import egoworld
from egoworld_assets.review import distributions, drift_page
from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import DriftSettings
from egoworld_ops.errors import SetupError
from egoworld_ops.files.tables import provenance_at, write_table
from egoworld_ops.lake import counted, reference
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.reference import Reference
from egoworld_ops.query.drift import Report, Values, compare
from egoworld_ops.query.views import FILE_NAME
from egoworld_ops.upkeep import gc
from tests.egoworld_assets.review.served import asked
from tests.lakes import write_video

N_METRICS = 12
SEEDS = 20
OF_FEW = {"EGOWORLD_DRIFT__MINIMUM_VIDEOS": "8", "EGOWORLD_DRIFT__P": "0.2"}


def sample(rng: np.random.Generator, n: int) -> dict[tuple[str, str], Values]:
    """Metrics of the kinds there are: shares near one, mostly one, lengths over decades, mostly zero, often missing, constant."""
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: rng.beta(20, 2, n),
        lambda: np.where(rng.random(n) < 0.7, 1.0, rng.beta(10, 1, n)),
        lambda: rng.lognormal(0, 0.5, n),
        lambda: np.where(rng.random(n) < 0.9, 0.0, rng.random(n)),
        lambda: np.where(rng.random(n) < 0.3, np.nan, rng.normal(0.5, 0.1, n)),
        lambda: np.ones(n),
    ]
    return {("s", f"m{k}"): Values([f"{i:05d}" for i in range(n)], kinds[k % len(kinds)]()) for k in range(N_METRICS)}


@pytest.mark.parametrize(("n", "m"), [(20, 20), (25, 300), (300, 300), (1000, 30)])
def test_clean_runs_raise_nothing(n: int, m: int) -> None:
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        report = compare(sample(rng, n), sample(rng, m), DriftSettings())
        assert (list(report.drifted), report.compared, list(report.too_few)) == ([], N_METRICS, [])


def _plant(metric: int, at: int, change: Callable[[np.random.Generator, np.ndarray], np.ndarray], seed: int, m: int = 1000) -> Report:
    rng = np.random.default_rng(seed)
    old, new = sample(rng, 500), sample(rng, m)
    values = new["s", f"m{metric}"].values.copy()
    values[at:] = change(rng, values[at:])
    return compare(old, {**new, ("s", f"m{metric}"): Values(new["s", f"m{metric}"].videos, values)}, DriftSettings())


PLANTED = {
    "nothing is found": (0, 500, lambda rng, v: np.full(len(v), np.nan), 2),
    "zeros": (2, 500, lambda rng, v: np.zeros(len(v)), 2),
    "a quarter of the clips without": (0, 500, lambda rng, v: np.where(rng.random(len(v)) < 0.6, v * 0.75, v), 10),
    "eight times as long": (2, 500, lambda rng, v: v * 8, 10),
    "a constant is another one": (5, 500, lambda rng, v: np.full(len(v), 0.97), 2),
    "only the last thirty": (1, 970, lambda rng, v: np.zeros(len(v)), 2),
    "what was missing is there": (4, 500, lambda rng, v: np.where(np.isnan(v), 0.5, v), 20),
    "from the first on": (0, 0, lambda rng, v: v * 0.5, 0),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_change_is_found_alone_and_since_its_first_video(name: str) -> None:
    metric, at, change, within = PLANTED[name]
    for seed in range(SEEDS):
        report = _plant(metric, at, change, seed)
        assert [d.metric for d in report.drifted] == [f"m{metric}"], seed
        assert abs(int(report.drifted[0].since) - at) <= within, seed


def test_a_change_too_small_to_matter_is_none_however_many_videos() -> None:
    report = _plant(0, 0, lambda rng, v: v - 0.008, 1, m=20_000)
    assert not report.drifted


def test_of_too_few_videos_nothing_is_said() -> None:
    rng = np.random.default_rng(3)
    old, new = sample(rng, 19), sample(rng, 500)
    report = compare(old, new, DriftSettings())
    assert (report.compared, len(report.too_few)) == (0, N_METRICS)
    assert compare({}, new, DriftSettings()).too_few == report.too_few


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 20 videos, made one after the other, of which the last 8 have empty masks."""
    return _made(Lake(tmp_path_factory.mktemp("drift") / "lake"), 20, 12)


def _made(lake: Lake, n_videos: int, n_good: int) -> Run:
    made = lake.open_run({}, "20260101_0000", dict)
    for n in range(n_videos):
        video_id = write_video(made, f"v{n:02d}", n_frames=6, seed=n)
        for path in made.path.glob(f"video_id={video_id}/clip_id=*/masks.parquet") if n >= n_good else ():
            write_table(path, "masks", schema.empty("masks"), (provenance_at(path) or {}) | {"rows": 0})
        counted.count(made, video_id)
    return made


def drift(run: Run, *arguments: str) -> Result:
    return CliRunner().invoke(egoworld, ["drift", *arguments], env=OF_FEW | {"EGOWORLD_LAKE": str(run.lake.root)}, catch_exceptions=False)


def test_the_command_names_what_moved_since_when_and_the_worst_clips(run: Run) -> None:
    said = drift(run, "--last", "10")
    assert said.exit_code == 1
    lines = said.output.splitlines()
    assert lines[0].startswith("run 20260101_0000, the last 10 videos (10 videos) against the other videos of this run (10 videos): ")
    [moved] = [line for line in lines if line.startswith("masks        masked_share")]
    assert " -> 0 since v12-" in moved
    assert lines[lines.index(moved) + 1].split()[0].startswith("v12-")
    assert not [line for line in lines if line.startswith(("detections", "hand_pose"))]


def test_the_page_says_what_the_command_says_and_shows_how_values_are_spread(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = drift(run, "--last", "10").output.splitlines()
    for name, value in OF_FEW.items():
        monkeypatch.setenv(name, value)
    with asked(run.lake.root, tmp_path / "scratch") as client:
        index = client.shown.indexes.of(run)  # type: ignore[attr-defined]
        assert index.whole.wait(30)
        page = client.get("/run/latest/drift?last=10").text
        assert html.unescape(page.partition("<p>run")[2].partition("</p>")[0]).split(":")[0] == said[0][3:].split(":")[0]
        assert "masks masked_share</a></th>" in page
        assert re.search(r"clips\?q=v12-\w+\">v12-\w+</a>, 8 videos", page)
        assert page.count("<tr data-row>") == len([line for line in said[1:] if "median" in line])
        assert "nothing to compare" in client.get("/run/latest/drift?last=20").text
        assert [client.get(f"/run/latest/drift?{query}").status_code for query in ("against=../x", "last=-1")] == [404, 400]
        few = client.get("/run/latest/drift?last=3").text
        assert "8 are wanted on each side" in few
        assert "Nothing could be compared" in few
        few = _made(Lake(tmp_path / "few"), 5, 2)
        drift(few, "--last", "2")
        with asked(few.lake.root, tmp_path / "of few") as other_client:
            index_of_few = other_client.shown.indexes.of(few)  # type: ignore[attr-defined]
            [plot] = [plot for plot in distributions.of_stage("masks", [index, index_of_few]) if plot.name == "masked_share"]
        [own, other] = plot.of
        assert own is not None
        assert other is not None
        assert (sum(own.counts), own.n, own.counts[0], plot.over) == (20, 20, 8, "clips")
        assert (sum(other.counts), other.n, other.counts[0]) == (5, 5, 3)
        assert (own.median > 0, other.median) == (True, 0)
        for query in ("stage=masks", "stage=movement&against=none", "stage=masks&against=20260101_0000"):
            assert client.get(f"/run/latest/metrics?{query}").status_code == 200
        assert [client.get(f"/run/latest/metrics?{query}").status_code for query in ("stage=intake", "against=x")] == [400, 404]


def test_comparing_again_compares_with_the_same_and_what_cannot_be_read_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift(run, "--last", "10")
    monkeypatch.setenv("EGOWORLD_DRIFT__MINIMUM_VIDEOS", "8")
    reference.write(run.lake.root, Reference(run.run_id, released=True))
    with asked(run.lake.root, tmp_path / "scratch") as client:
        first = client.get("/run/latest/drift?last=10").text
        [chosen] = re.findall(r'<option value="([^"]*)" selected', first)
        again = client.get("/run/latest/drift", params={"last": "10", "against": chosen}).text
        assert again.partition("<h1>")[2] == first.partition("<h1>")[2]
        assert "against the release of run" in first
        itself = client.get("/run/latest/drift", params={"last": "10", "against": drift_page.ITSELF}).text
        assert re.findall(r'<option value="([^"]*)" selected', itself) == [drift_page.ITSELF]
        assert "against the other videos of this run (10 videos)" in itself
        (run.lake.root / reference.FILE_NAME).unlink()
        hold = "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", hold, str(run.lake.root / FILE_NAME)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            answer = client.get("/run/latest/drift")
            other.communicate()
        assert (answer.status_code, "cannot be read: IO Error" in answer.text) == (503, True)


def test_a_lake_without_a_catalog_says_how_to_get_one(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    with asked(tmp_path / "lake", tmp_path / "scratch") as client:
        assert "`egoworld drift 20260101_0000` measures" in html.unescape(client.get("/run/latest/drift").text)
        assert "No metric of hand_pose was measured" in client.get("/run/latest/metrics").text


def test_sides_without_videos_are_named(run: Run) -> None:
    with pytest.raises(SetupError, match=r"nothing to compare: run 20260101_0000, videos of /nowhere \(0 videos\)"):
        drift(run, "--source", "/nowhere")
    with pytest.raises(SetupError, match="is not in"):
        drift(run, "--against", "20260101_0001")
    with pytest.raises(SetupError, match="there is none in lake"):
        drift(run, "--against", "release")


def test_a_reference_is_kept_named_and_never_removed(run: Run) -> None:
    kept = drift(run, "--keep", "latest")
    assert (kept.exit_code, kept.output) == (0, "reference  run 20260101_0000\n")
    assert reference.read(run.lake.root) == Reference("20260101_0000")
    of_itself = CliRunner().invoke(
        egoworld, ["drift"], env=OF_FEW | {"EGOWORLD_LAKE": str(run.lake.root), "EGOWORLD_DRIFT__LAST_VIDEOS": "10"}
    )
    assert of_itself.output.startswith("run 20260101_0000, the last 10 videos (10 videos) against run 20260101_0000 (10 videos)")
    other = run.lake.open_run({"other": 1}, "20260102_0000", dict)
    reference.write(run.lake.root, Reference(other.run_id))
    assert dict(gc.plan(run.lake).keep)[other.run_id] == "the reference of drift"
    shutil.rmtree(other.path)
    with pytest.raises(SetupError, match="20260102_0000"):
        drift(run)
    (run.lake.root / reference.FILE_NAME).unlink()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"run_id": "x"}', "[1"])
def test_a_reference_that_says_nothing_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / reference.FILE_NAME).write_text(content)
    with pytest.raises(SetupError, match="does not say what the reference is"):
        reference.read(tmp_path)
