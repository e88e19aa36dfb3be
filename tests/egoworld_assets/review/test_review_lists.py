"""The lists of the review page say what the lake says, whatever is in it, and nobody else is told."""

from __future__ import annotations

import html
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from egoworld_assets.review.index import Index
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.lake import counted, judging
from egoworld_ops.lake.lake import Lake, Run
from tests import lakes
from tests.egoworld_assets.review.served import asked

RUN = "20260101_0000"
EVIL = "<script>alert(1)</script>'\"&"


def fail(run: Run, video_id: str, clip_id: str, stage: str) -> None:
    row = {
        "video_id": video_id,
        "clip_id": clip_id,
        "stage": stage,
        "backend": "toy",
        "culprit": f"/raw/{EVIL}.mp4",
        "error_class": "CorruptVideo",
    }
    row |= {
        "reason": EVIL,
        "cure": "Copy it again",
        "retryable": False,
        "attempts": 2,
        "dead_letter": True,
        "frame_index": 7,
        "traceback": EVIL,
    }
    run.clip_table(stage, video_id, clip_id).unlink()
    write_table(run.failure(stage, video_id, clip_id), "failures", schema.from_rows("failures", [row]), {"digest": "d"})
    counted.count(run, video_id)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three clips; a clip of one has failed in `events`, and the other was measured, whose last clip has no joints."""
    run = Lake(tmp_path_factory.mktemp("review") / "lake").open_run({}, RUN, dict)
    first, second = (lakes.write_video(run, name, 12, 0.2, 0.04) for name in ("first", "second"))
    fail(run, first, counted_clips(run, first)[1], "events")
    [worst] = counted_clips(run, second)[2:]
    path = run.clip_table("hand_pose", second, worst)
    rows = read_table(path, "hand_pose")
    nothing = pa.nulls(rows.num_rows, rows.schema.field("joints_m").type)
    at = rows.schema.get_field_index("joints_m")
    write_table(path, "hand_pose", rows.set_column(at, rows.schema.field(at), nothing), provenance_at(path) or {}, validated=True)
    with duckdb.connect() as connection:
        judging.judge_videos(connection, run, "hand_pose", [second], {})
    return run.lake.root


def counted_clips(run: Run, video_id: str) -> list[str]:
    return sorted(path.name.partition("=")[2] for path in run.video_folder(video_id).glob("clip_id=*"))


@pytest.fixture(scope="module")
def client(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with asked(lake, tmp_path_factory.mktemp("scratch")) as client:
        for _ in range(100):
            if "Reading the run" not in client.get(f"/run/{RUN}").text:
                break
        yield client


def video_of(lake: Path, name: str) -> str:
    return next(lake.glob(f"run_id={RUN}/video_id={name}-*")).name.partition("=")[2]


def test_a_page_whose_run_is_read_while_it_is_made_does_not_take_what_it_has_for_all(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_asked, read, rows = threading.Event(), Index._read_changed, Index.rows

    def after_the_page(index: Index, ended: threading.Event) -> None:
        page_asked.wait(30)
        read(index, ended)

    def before_the_run(index: Index, *question: Any) -> list[dict[str, Any]]:
        found = rows(index, *question)
        if threading.current_thread().name != "review-index":
            page_asked.set()
            index.whole.wait(30)
        return found

    monkeypatch.setattr(Index, "_read_changed", after_the_page)
    monkeypatch.setattr(Index, "rows", before_the_run)
    with asked(lake, tmp_path / "scratch") as client:
        assert f"Reading the run {RUN}: " in client.get(f"/run/{RUN}/warnings").text
        assert "Reading the run" not in client.get(f"/run/{RUN}/warnings").text


def test_the_run_is_counted_by_stage_and_state(client: TestClient) -> None:
    page = client.get(f"/run/{RUN}").text
    events = re.search(r'<th scope="row">events</th>(.*?)</tr>', page, re.DOTALL)
    assert events is not None
    assert re.findall(r">(\d+)</a>", events[1]) == ["5", "1"]
    assert "100 %" in page
    assert "Videos: 2; clips: 6." in page


def test_clips_are_listed_worst_first_and_those_without_a_value_last(client: TestClient, lake: Path) -> None:
    page = client.get(f"/run/{RUN}/clips", params={"metric": "hand_pose.solved_share"}).text
    listed = re.findall(r'class="name">([^<]+)</td>\s*<th scope="row"><a href="[^"]+">([^<]+)<', page)
    run = Run(Lake(lake), RUN)
    assert [video_id for video_id, _ in listed] == [video_of(lake, "second")] * 3 + [video_of(lake, "first")] * 3
    assert listed[0][1] == counted_clips(run, video_of(lake, "second"))[2], "the one without joints"
    assert "of the video" not in page.partition("<tbody>")[2], "each clip has its own number"
    assert "lowest hand_pose.solved_share first" in page  # it warns below its minimum


def test_every_link_of_a_list_leads_to_a_page(client: TestClient) -> None:
    for path in ("/", f"/run/{RUN}", f"/run/{RUN}/clips", f"/run/{RUN}/failures?kind=all", f"/run/{RUN}/warnings"):
        for address in set(re.findall(r'(?:href|src)="(/[^"]*)"', client.get(path).text)):
            assert client.get(html.unescape(address)).status_code == 200, (path, address)


def test_numbers_and_warnings_of_a_stage_stay_where_a_file_of_it_does_not_count(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake, tmp_path / "lake", symlinks=True)
    run = Run(Lake(tmp_path / "lake"), RUN)
    second = video_of(run.lake.root, "second")
    clip_id = counted_clips(run, second)[0]
    row = {
        "video_id": second,
        "clip_id": clip_id,
        "stage": "hand_pose",
        "backend": "toy",
        "culprit": "c",
        "error_class": "CorruptVideo",
        "reason": "r",
    }
    row |= {"cure": "c", "retryable": False, "attempts": 1, "dead_letter": True, "frame_index": 0, "traceback": ""}
    write_table(run.failure("hand_pose", second, clip_id), "failures", schema.from_rows("failures", [row]), {"digest": "d"})
    counted.count(run, second)
    with duckdb.connect() as connection:
        judging.judge_videos(connection, run, "hand_pose", [second], {})
    with asked(run.lake.root, tmp_path / "scratch") as client:
        client.shown.indexes.of(run).refresh(threading.Event())  # type: ignore[attr-defined]
        page = client.get(f"/run/{RUN}/clips", params={"metric": "hand_pose.solved_share"}).text
        assert re.findall(r'class="n">([^<]*)</td>\s*<td data-label="Verdict"', page)[0] == "0"
        assert "solved_share" in client.get(f"/run/{RUN}/warnings").text


def test_what_is_no_video_or_cannot_be_looked_at_is_named_and_the_rest_shown(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake, tmp_path / "lake", symlinks=True)
    run = Run(Lake(tmp_path / "lake"), RUN)
    (run.path / "video_id=A b").mkdir()
    (run.video_folder(video_of(run.lake.root, "first")) / "clip_id=file").touch()
    with asked(run.lake.root, tmp_path / "scratch") as client:
        client.shown.indexes.of(run).refresh(threading.Event())  # type: ignore[attr-defined]
        page = client.get(f"/run/{RUN}").text
        assert "Videos: 2; clips: 6." in page
        assert "A b" in page


def test_clips_are_filtered_by_stage_state_and_name(client: TestClient, lake: Path) -> None:
    dead = client.get(f"/run/{RUN}/clips", params={"stage": "events", "state": "dead letter"}).text
    assert re.findall(r'class="name">([^<]+)<', dead) == [video_of(lake, "first")]
    assert client.get(f"/run/{RUN}/clips", params={"q": "second"}).text.count("data-row") == 3
    assert "No clip is so" in client.get(f"/run/{RUN}/clips", params={"page": 9}).text


def test_a_dead_letter_shows_its_reason_and_both_commands(client: TestClient, lake: Path) -> None:
    page = client.get(f"/run/{RUN}/failures").text
    video_id = video_of(lake, "first")
    assert f"egoworld run --video {video_id} --clip " in page
    assert f"egoworld redrive --run {RUN} --video {video_id} --clip " in page
    assert "Copy it again" in page
    assert "at frame 7" in page


def test_what_files_say_is_never_markup(client: TestClient) -> None:
    for path in ("failures", "clips", "warnings", ""):
        page = client.get(f"/run/{RUN}/{path}".rstrip("/"), params={"q": EVIL} if path else {}).text
        assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in client.get(f"/run/{RUN}/failures").text
    assert "<script>alert" not in client.get(f"/run/{EVIL}").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/run/20990101_0000", 404),
        ("/run/..%2f..%2fetc", 404),
        ("/static/..%2fapp.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/etc/passwd", 404),
        (f"/run/{RUN}/clips?size=1000000", 400),
        (f"/run/{RUN}/clips?page=-1", 400),
        (f"/run/{RUN}/clips?page=1e9", 400),
        (f"/run/{RUN}/clips?metric=x;drop", 400),
        (f"/run/{RUN}/clips?q={'a' * 1000}", 400),
    ],
)
def test_an_address_that_no_page_links_to_is_refused(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_every_answer_has_the_headers_and_nothing_may_be_written(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, f"/run/{RUN}", headers={"origin": "http://127.0.0.1:3080"}).status_code == 405
        assert client.request(method, f"/run/{RUN}").status_code == 403


def test_a_name_that_was_made_to_point_here_is_refused(client: TestClient) -> None:
    for host, status in (("evil.example", 421), ("127.0.0.1.evil.example:3080", 421), ("192.168.0.9", 421), ("", 421), ("[", 421)):
        assert client.get("/", headers={"host": host}).status_code == status
    for host in ("localhost:3080", "127.0.0.1", "[::1]:3080", "REVIEW.local"):
        assert client.get("/", headers={"host": host}).status_code == 200


def test_beyond_loopback_only_who_has_the_token_is_told_anything(lake: Path, tmp_path: Path) -> None:
    with asked(lake, tmp_path / "scratch", token="s3cret", base="http://192.168.0.9:3080") as client:
        assert client.get("/").status_code == 401
        assert client.get("/static/review.css").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        first = client.get(f"/run/{RUN}?token=s3cret&x=1")
        assert (first.status_code, first.headers["location"]) == (303, f"/run/{RUN}?x=1")
        assert "httponly" in first.headers["set-cookie"].lower()
        assert "samesite=strict" in first.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200


def test_a_lake_without_a_run_and_one_that_is_not_there_say_so(tmp_path: Path) -> None:
    with asked(tmp_path / "none", tmp_path / "scratch") as client:
        assert "holds no run yet" in client.get("/").text
        assert client.get("/run/latest").status_code == 404
        assert "egoworld demo" in client.get("/run/latest").text


def test_a_run_that_grows_breaks_and_goes_is_followed(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake, tmp_path / "lake", symlinks=True)
    run = Run(Lake(tmp_path / "lake"), RUN)
    with asked(run.lake.root, tmp_path / "scratch") as client:
        index = client.shown.indexes.of(run)  # type: ignore[attr-defined]
        index.refresh(threading.Event())
        third = lakes.write_video(run, "third", 12, 0.2, 0.04)
        run.video_table("clips", video_of(run.lake.root, "second")).write_bytes(b"PAR1 cut short")
        index.refresh(threading.Event())
        page = client.get(f"/run/{RUN}").text
        assert "Videos: 3; clips: 6." in page
        assert "Cannot be read" in page
        shutil.rmtree(run.video_folder(third))
        index.refresh(threading.Event())
        assert "Videos: 2; clips: 3." in client.get(f"/run/{RUN}").text
        shutil.rmtree(run.path)
        gone = client.get(f"/run/{RUN}")
        assert gone.status_code == 404
        assert "is not in" in gone.text


def test_a_run_of_another_contract_is_shown_and_said_to_be(tmp_path: Path) -> None:
    run = Lake(tmp_path / "lake").open_run({"schema": "3"}, RUN, dict)
    lakes.write_video(run, "old", 4, 0.2, 0.04)
    with asked(run.lake.root, tmp_path / "scratch") as client:
        assert "contract 3" in client.get("/").text
        assert "version 3 of the data contract" in client.get(f"/run/{RUN}").text
