"""The command line for people: misspelt names, one line per error, and the listing commands."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from egoworld_assets.cli import processing
from egoworld_assets.cli.main import egoworld
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_ops.errors import EgoworldError
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake, register
from egoworld_ops.settings import Settings
from tests import brokers
from tests.conftest import ROOT
from tests.egoworld_ops import media
from tests.lakes import fail, write_video


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A new home for a test, which is also the working folder."""
    for name in ("EGOWORLD_LAKE", "EGOWORLD_RAW", "EGOWORLD_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return processing.settings(None)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(egoworld, arguments)


def said(*arguments: str) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str) -> str:
    """The error that a command ends with: one of ours, or click's own; never a traceback."""
    done = call(*arguments)
    assert done.exit_code
    assert isinstance(done.exception, (EgoworldError, SystemExit)), done.exception
    return str(done.exception) if isinstance(done.exception, EgoworldError) else done.output


def partitions() -> set[str]:
    with processing.instance() as dagster:
        return set(dagster.get_dynamic_partitions(str(VIDEO_IDS.name)))


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert said("--version").strip() == f"egoworld, version {version('egoworld')}"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("proces",), "process"),
        (("dead-leters",), "dead-letters"),
        (("runs", "lst"), "list"),
        (("models", "fech"), "fetch"),
        (("ledger", "count"), "counts"),
    ],
)
def test_a_misspelt_command_names_the_nearest(arguments: tuple[str, ...], meant: str) -> None:
    assert f"Did you mean {meant}?" in refused(*arguments)


def test_a_lake_without_a_run_says_so_wherever_one_is_needed(settings: Settings) -> None:
    for arguments in (
        ("queries",),
        ("sql", "SELECT 1"),
        ("dead-letters",),
        ("release",),
        ("verify",),
        ("runs", "show"),
        ("ledger", "counts"),
    ):
        assert f"lake {settings.lake}: holds no run. Process a video first" in refused(*arguments)
    assert f"no run yet; lake {settings.lake}" in said("runs", "list")


def test_a_lake_that_is_no_folder_says_so(settings: Settings) -> None:
    settings.lake.write_bytes(b"a file")
    for arguments in (("videos",), ("runs", "list"), ("queries",), ("process", "--all")):
        assert f"lake {settings.lake}: is no folder. Name a folder" in refused(*arguments)
    settings.lake.unlink()
    settings.lake.symlink_to("/mnt/not-mounted")
    for arguments in (("videos",), ("runs", "list"), ("queries",), ("process", "--all"), ("register", "raw")):
        assert "is a link to /mnt/not-mounted, which is not there: is its disk mounted?" in refused(*arguments)


def test_sql_is_answered_and_what_is_wrong_with_it_is_one_line(settings: Settings) -> None:
    write_video(Lake(settings.lake).open_run({"a": 1}, "one", dict), "kitchen", n_frames=20)
    assert "kitchen" in said("sql", "SELECT video_id FROM videos")
    wrong = refused("sql", "SELECT * FROM vidoes")
    assert "vidoes" in wrong
    assert "\n" not in wrong
    assert "read-only" in refused("sql", "CREATE TABLE mine (a INT)")


def test_a_runs_name_that_is_nearly_right_names_the_run(settings: Settings) -> None:
    Lake(settings.lake).open_run({"a": 1}, "20260101_1200", dict)
    assert "Did you mean 20260101_1200?" in refused("runs", "show", "20260101_1201")
    assert "20260101_1200, pinned" in said("runs", "use", "20260101_1200")
    assert "latest, pinned" in said("runs", "list")
    said("runs", "use", "--release")
    assert "pinned" not in said("runs", "list")


def test_videos_are_listed_with_what_became_of_them(settings: Settings) -> None:
    paths = {name: media.make(settings.raw / f"{name}.mp4", 4 + n) for n, name in enumerate(("done", "broken", "new"))}
    ids = {name: register.register(settings.lake, [path]).video_ids[0] for name, path in paths.items()}
    run = Lake(settings.lake).open_run({"a": 1}, "one", dict)
    for name in ("done", "broken"):
        assert write_video_as(run, ids[name])
    clip = next(run.video_folder(ids["broken"]).glob("clip_id=*")).name.removeprefix("clip_id=")
    fail(run, ids["broken"], clip, "masks")
    lines = {line.split()[0]: line for line in said("videos").splitlines()}
    assert "done, 1 clip(s)" in lines[ids["done"]]
    assert "incomplete, of 1 clip(s): masks 1 failed" in lines[ids["broken"]]
    assert "not processed" in lines[ids["new"]]
    assert f"3 video(s); lake {settings.lake}, run one" in said("videos")
    assert ids["new"] not in said("videos", "done*")
    paths["new"].unlink()
    assert f"its raw file is away: {paths['new']}" in said("videos")
    for pointer in ("latest", "latest.json"):
        (settings.lake / pointer).unlink()
    assert "does not say which of its runs is the latest. Choose one: `egoworld runs use RUN`" in refused("videos")


def write_video_as(run: object, video_id: str) -> bool:
    """The files of a video under the identifier of a registered one."""
    from egoworld_ops.files.tables import provenance_at, read_table, write_table
    from egoworld_ops.lake.lake import Run

    assert isinstance(run, Run)
    made = run.video_folder(write_video(run, "made", n_frames=20))
    for path in sorted(made.rglob("*.parquet")):
        table = read_table(path, path.stem)
        rows = table.set_column(0, table.schema.field(0), [[video_id] * table.num_rows])
        write_table(run.video_folder(video_id) / path.relative_to(made), path.stem, rows, provenance_at(path) or {}, validated=True)
    subprocess.run(["rm", "-r", str(made)], check=True)
    return True


def test_a_video_that_is_nearly_right_names_the_video_and_the_lake(settings: Settings) -> None:
    [video_id] = register.register(settings.lake, [media.make(settings.raw / "kitchen.mp4", 5)]).video_ids
    explained = ("explain", video_id[:-1], "f0", "masks")
    for arguments in (
        ("process", "kitchn"),
        explained,
        ("forget", video_id[:-1]),
        ("videos", "kitchen.mp4"),
        ("run", "--video", video_id[:-1]),
    ):
        wrong = refused(*arguments)
        assert f"is not registered in lake {settings.lake}" in wrong
        assert f"Did you mean {video_id}?" in wrong
    assert Lake(settings.lake).runs() == [], "a name that means nothing opens no run"


def test_stages_and_clips_that_are_nearly_right_name_the_right_one(settings: Settings) -> None:
    [video_id] = register.register(settings.lake, [media.make(settings.raw / "kitchen.mp4", 5)]).video_ids
    assert write_video_as(Lake(settings.lake).open_run({"a": 1}, "one", dict), video_id)
    assert "Did you mean masks?" in refused("explain", video_id, "f0000000_0000020", "mask")
    assert "Did you mean f0000000_0000020?" in refused("explain", video_id, "f0000000_0000021", "masks")
    assert "Did you mean masks?" in refused("run", "--video", video_id, "--from", "mask")


def test_the_pool_has_its_commands_here_too(settings: Settings, tmp_path: Path) -> None:
    assert "serve" in said("pool", "--help")
    assert "egoworld pool serve" in refused("pool", "status", "--folder", str(tmp_path / "no pool"))


def test_process_without_a_name_says_what_to_name(settings: Settings) -> None:
    assert "--all or --missing" in refused("process")
    assert "no video is registered" in said("process", "--all")


def test_a_forgotten_video_stays_away_until_its_file_is_named(settings: Settings) -> None:
    path = media.make(settings.raw / "kitchen.mp4", 5)
    os.utime(path, (path.stat().st_mtime - 60,) * 2)
    other = media.make(settings.raw / "other.mp4", 6)
    os.utime(other, (other.stat().st_mtime - 60,) * 2)
    said("register", "raw")
    assert len(partitions()) == 2
    [video_id] = [v for v in partitions() if v.startswith("kitchen")]
    assert f"forgotten  {video_id}" in said("forget", "kitchen*")
    assert partitions() == set(intake.registered(Lake(settings.lake)))
    assert video_id not in partitions()

    cursor = None
    for _ in range(3):
        found = register.scan(settings.raw, settings.lake, cursor, 50)
        cursor = found.cursor
        assert found.video_ids == []
    path.rename(settings.raw / "renamed.mp4")
    for _ in range(3):
        found = register.scan(settings.raw, settings.lake, cursor, 50)
        cursor = found.cursor
        assert found.video_ids == []
    said("register", "raw")
    assert video_id not in partitions()
    assert video_id not in intake.registered(Lake(settings.lake))

    assert f"registered  {video_id}" in said("register", "raw/renamed.mp4")
    assert video_id in partitions()


def test_an_unknown_error_is_one_line_and_debug_shows_where(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Lake, "runs", broken)
    assert "ZeroDivisionError: division by zero. This is a bug" in refused("runs", "list")
    assert isinstance(call("--debug", "runs", "list").exception, ZeroDivisionError)


def test_databases_of_dagster_that_cannot_be_used_are_no_bug(settings: Settings, tmp_path: Path) -> None:
    history = Path(os.environ["DAGSTER_HOME"]) / "history"
    history.mkdir()
    (history / "runs.db").write_text("no database")
    said = refused("alerts")
    assert "Dagster: DatabaseError" in said
    assert "Let this user write to the databases" in said


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_one_line(settings: Settings, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        assert "Let this user write there" in refused("register", "raw")
    finally:
        tmp_path.chmod(0o755)


@pytest.fixture
def own_pool() -> Iterator[Path]:
    """The folder of a pool that one test alone uses; its broker ends with the test."""
    root = Path(tempfile.mkdtemp(prefix="egoworld-pool-"))
    yield root / "p"
    brokers.stop(root / "p")
    shutil.rmtree(root)


def test_the_wheel_is_whole_and_works_from_any_folder(tmp_path: Path, own_pool: Path) -> None:
    """Built and installed without its dependencies, which are this environment's; its workers run the wheel's code, too."""
    wheels, site, work = tmp_path / "wheels", tmp_path / "site", tmp_path / "work"
    work.mkdir()
    source = tmp_path / "source"
    subprocess.run(["git", "-C", str(ROOT), "checkout-index", "-a", f"--prefix={source}/"], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), str(source)], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr
    [wheel] = wheels.glob("egoworld-*.whl")
    install = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], capture_output=True, text=True
    )
    assert install.returncode == 0, install.stderr

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EGOWORLD_LAKE", "EGOWORLD_RAW", "DAGSTER_HOME"))}
    own = {"PYTHONPATH": str(site), "EGOWORLD_WEIGHTS": str(tmp_path / "no weights"), "EGOWORLD_POOL__FOLDER": str(own_pool)}
    environment = kept | own | {"DAGSTER_DISABLE_TELEMETRY": "1"}

    def egoworld_in_work(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = f"import egoworld_assets.cli.main as m, sys; assert m.__file__.startswith({str(site)!r}), m.__file__; sys.exit(m.main())"
        command = [sys.executable, "-P", "-c", code, *arguments]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)

    assert egoworld_in_work("--version").returncode == 0
    shown = egoworld_in_work("--profile", "h100x4", "videos")
    assert shown.returncode == 0, shown.stderr
    demo = egoworld_in_work("demo")
    assert (demo.returncode, "Traceback" in demo.stderr) == (1, False), demo.stderr
    assert demo.stderr.count("Run: egoworld models fetch palm_detection_full") == 1, demo.stderr
    assert "egoworld_ops.errors" not in demo.stderr
    assert "manifest           3 rows" in demo.stdout
    assert "detections   stopped: see above" in demo.stdout
    assert "masks        not run" in demo.stdout
    assert "incomplete, of 3 clip(s)" in demo.stdout
    assert "preview.png" not in demo.stdout
    assert (work / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()
    assert (site / "egoworld_assets" / "example" / "kitchen.truth" / "scene.json").is_file()
