"""What ran where, in a run whose files say it: two devices, a gap of each cause, a clip of another run, and results that do not say."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops import logs
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings, InputError, SetupError
from egoworld_ops.files.tables import make_provenance, provenance_at, read_table, write_table
from egoworld_ops.lake import timeline
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.timeline import Work
from egoworld_ops.report import chrome_trace, costs, gantt, otlp
from tests.lakes import write_video

T0 = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
HOST = make_provenance("", {}, 0, 0, "")["host"]
Made = dict[str, Any]


def made(worker: str, began_s: float, waited: Made | None = None, device: Made | None = None) -> Made:
    """As a pool's outcome says it; seconds since T0."""
    began_at = (T0 + timedelta(seconds=began_s)).isoformat(timespec="milliseconds")
    return {"worker": worker, "began_at": began_at, "waited_s": waited or {}, "device_s": device or {}}


BEFORE = {"idle": 9e3, "starting": 20.0, "starved_decode": 4.0}
STAGES: dict[str, tuple[float, Made]] = {
    "detections": (
        10.0,
        made("gpu0-1", 30, {"queued": 25.0, "decoding": 4.0, "decoded": 1.0}, {"idle": 9e3, "starting": 20.0, "starved_decode": 4.0}),
    ),
    "masks": (20.0, made("gpu0-1", 45, {"queued": 5.0}, {"starved_clips": 5.0})),
    "hand_pose": (5.0, made("gpu0-3", 75, {}, {"blocked": 4.0})),
    "fusion": (2.0, made("cpu0-2", 82, {}, {"starved_clips": 1.0})),
}
"""Seconds and place of each stage of the one clip; the others are of an older version, and say neither."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    lake = Lake(tmp_path_factory.mktemp("timeline") / "lake")
    earlier = lake.open_run({"a": 1}, "20250101_0000", dict)
    run = lake.open_run({}, "20260101_0000", dict)
    video_id = write_video(run, "one", n_frames=60, clip_s=2.0, sample_stride=2)
    [folder] = run.video_folder(video_id).glob("clip_id=*")
    for stage in [path.stem for path in folder.glob("*.parquet")]:
        stored = T0 + timedelta(seconds=100)
        seconds, said = STAGES.get(stage, (0.0, {}))
        path, of = folder / f"{stage}.parquet", earlier if stage == "mapping" else run
        known = provenance_at(path)
        assert known is not None
        stamp = make_provenance(known["digest"], known["identity"], known["rows"], 7.0 if stage == "mapping" else seconds, of.run_id, said)
        write_table(path, stage, read_table(path, stage), stamp | {"created_at": stored.isoformat()})
    row = {"video_id": video_id, "clip_id": folder.name.removeprefix("clip_id="), "stage": "events", "backend": "test", "attempts": 1}
    row |= {"culprit": "it", "error_class": "CorruptVideo", "reason": "broken", "cure": "mend it", "retryable": False, "dead_letter": False}
    failed = make_provenance("f", {}, 1, 3.0, run.run_id, made("cpu0-2", 90)) | {"created_at": T0.isoformat()}
    write_table(folder / "events.failure.parquet", "failures", schema.from_rows("failures", [row | {"traceback": ""}]), failed)
    (folder / "events.parquet").unlink()
    run.write_meta(video_id, folder.name.removeprefix("clip_id="))
    return run


def test_each_result_says_where_and_when_it_was_computed(run: Run) -> None:
    works = {work.stage: work for work in timeline.of_run(run) if work.run_id == run.run_id}
    masks = works["masks"]
    assert (masks.device, masks.on_gpu, masks.began_at, masks.ended_at) == (
        "gpu0",
        True,
        T0 + timedelta(seconds=45),
        T0 + timedelta(seconds=65),
    )
    assert (masks.asked_at, masks.frames, masks.failed) == (T0 + timedelta(seconds=40), 30, False)
    assert (works["events"].failed, works["events"].device, works["events"].seconds) == (True, "cpu0", 3.0)
    assert (works["points"].device, works["points"].began_at) == ("unknown", T0 + timedelta(seconds=100)), "an older version says less"
    assert all(work.n_bytes > 0 for work in works.values())


def test_what_makes_no_sense_in_a_file_is_left_out_or_shown_harmlessly(run: Run, tmp_path: Path) -> None:
    """`meta.json` that is broken, or says things that cannot be; and a table of nobody."""
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    video_id = write_video(made, "one", n_frames=30)
    [folder] = made.video_folder(video_id).glob("clip_id=*")
    whole = {work.stage for work in timeline.of_run(made)}
    known = {stage: provenance_at(folder / f"{stage}.parquet") for stage in ("masks", "fusion", "points")}
    odd = {"masks": {**(known["masks"] or {}), "worker": "\x1b[31mgpu0-1"}, "fusion": {**(known["fusion"] or {}), "seconds": "soon"}}
    (folder / "nobody.parquet").write_bytes((folder / "masks.parquet").read_bytes())
    (folder / "meta.json").write_text(json.dumps({**odd, "points": [1], "nobody": known["masks"]}))
    found = {work.stage: work for work in timeline.of_run(made)}
    assert set(found) == whole - {"fusion", "points"}
    assert found["masks"].device == "\\x1b[31mgpu0"
    (folder / "meta.json").write_text("{ no")
    assert {work.stage for work in timeline.of_run(made)} == whole, "each file says it too"


@pytest.mark.parametrize(
    "odd",
    [
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"waited_s": {"queued": 1e300}},
        {"device_s": {"starting": float("inf")}},
        {"device_s": [1]},
        {"identity": {"frames": [0, 60], "sample_stride": 0}},
        {"began_at": "yesterday"},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_a_file_that_makes_no_sense_is_left_out(run: Run, odd: Made) -> None:
    [meta] = run.path.glob("video_id=*/clip_id=*/meta.json")
    whole = meta.read_text()
    said = json.loads(whole)
    meta.write_text(json.dumps(said | {"masks": said["masks"] | odd}))
    try:
        works = list(timeline.of_run(run))
    finally:
        meta.write_text(whole)
    assert "masks" not in {work.stage for work in works}
    assert list(gantt.lines(works, run.run_id))


def test_what_took_no_time_is_drawn(run: Run) -> None:
    """As a video that was rejected at once, alone in its run."""
    work = next(iter(timeline.of_run(run)))
    alone = replace(work, run_id="r", stage="manifest", worker="step", seconds=0.0, waited_s=dict.fromkeys(timeline.WAITS, 0.0))
    assert "1 results of 1 video in 0:00:00 of work" in next(iter(gantt.lines([alone], "r")))
    assert next(line.split() for line in gantt.lines([alone], "r") if line.startswith("manifest"))[1:3] == ["1", "0"]


def test_a_gap_is_attributed_to_what_the_device_waited_for(run: Run) -> None:
    drawn = timeline.lanes(w for w in timeline.of_run(run) if w.stage in STAGES)
    on_gpu = [(s.what, round(s.seconds, 3)) for s in drawn[HOST, "gpu0"]]
    assert on_gpu == [
        ("idle", 6.0), ("starting", 20.0), ("starved_decode", 4.0), ("detections", 10.0), ("starved_clips", 5.0),
        ("masks", 20.0), ("other", 6.0), ("blocked", 4.0), ("hand_pose", 5.0),
    ]  # fmt: skip
    assert drawn[HOST, "gpu0"][0].began_at == T0, "the first clip was asked for then"
    assert [s.what for s in drawn[HOST, "cpu0"]] == ["other", "starved_clips", "fusion"]


def test_the_chart_shows_it_to_a_person(run: Run) -> None:
    said = list(gantt.lines([w for w in timeline.of_run(run) if w.stage in (*STAGES, "mapping")], run.run_id, width=84))
    assert "4 results of 1 video in 0:01:24 of work, from 2026-01-01 12:00:00 UTC; 1 results were taken from other runs" in said[0]
    [row] = [line for line in said if line.startswith("gpu0  ") and "%" not in line]
    [legend] = [line for line in said if line.startswith("A ")]
    letter = {stage: letter for letter, stage in (pair.split(" ") for pair in legend.split("  "))}
    spans = {"detections": 10, ".": 5, "masks": 20, "-": 6, "x": 4, "hand_pose": 5}
    assert row == "gpu0  " + " " * 6 + "^" * 20 + "~" * 4 + "".join(letter.get(what, what) * n for what, n in spans.items())
    [shares] = [line for line in said if line.startswith("gpu0  ") and "%" in line]
    assert "35 s  44%" in shares
    [of_stage] = [line for line in said if line.startswith("detections ")]
    assert "25.0 s  4.0 s     1.0 s" in of_stage
    assert next(iter(gantt.lines([], "r"))) == "run r: nothing was computed in it"


def test_a_chrome_trace_has_the_same_spans(run: Run) -> None:
    events = json.loads(chrome_trace.chrome_trace([w for w in timeline.of_run(run) if w.stage in STAGES]))["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = {(names[e["pid"], e["tid"]], e["name"]): (e["ts"], e["dur"]) for e in events if e["ph"] == "X"}
    assert spans["gpu0", "masks"] == (45_000_000, 20_000_000)
    assert spans["gpu0", "loading"] == (6_000_000, 20_000_000)
    assert spans["gpu0, decoding ahead", "decode for detections"] == (25_000_000, 4_000_000)
    assert min(ts for ts, _ in spans.values()) == 0


def _answers_as_grpc(listening: socket.socket) -> None:
    """The settings frame that HTTP/2 begins with."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00\n")


def test_traces_arrive_at_a_receiver_with_each_clip_below_its_video(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(302 if "moved" in self.path else 200 if self.path == "/v1/traces" else 404)
            if "moved" in self.path:
                self.send_header("Location", "/v1/traces")
            self.end_headers()

        def do_GET(self) -> None:
            """What a client sees that follows a redirect, as the page of a login does: nothing was taken."""
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        works = [w for w in timeline.of_run(run) if w.stage in (*STAGES, "events")]
        [failed] = [w for w in works if w.failed]
        works.append(replace(failed, stage="events", failed=False, seconds=1.0))  # of a fallback
        assert otlp.send(works, f"{url}/") == len(got[0][1]["resourceSpans"][0]["scopeSpans"][0]["spans"])
        with pytest.raises(SetupError, match="answers 404"):
            otlp.send(works, f"{url}/elsewhere")
        with pytest.raises(SetupError, match="answers 302"):
            otlp.send(works, f"{url}/moved")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which does not lead back to this host
        assert otlp.send(works, url)
        server.shutdown()
    with pytest.raises(SetupError, match="cannot be reached"):
        otlp.send(works, url)
    for no_address in ("file:///tmp", "http://127.0.0.1:x9", "http://host/a b", "http://[host"):
        with pytest.raises(BadSettings, match="is no address"):
            otlp.send(works, no_address)
    with socket.create_server(("127.0.0.1", 0)) as grpc:
        threading.Thread(target=_answers_as_grpc, args=(grpc,), daemon=True).start()
        with pytest.raises(SetupError, match="4317 is gRPC's"):
            otlp.send(works, f"http://127.0.0.1:{grpc.getsockname()[1]}")
    spans = got[0][1]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    [video_id] = {w.video_id for w in works}
    assert {span["traceId"] for span in spans} == {logs.trace_of(run.run_id, video_id)}
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    assert all(len(span["traceId"]) == 32 and len(span["spanId"]) == 16 for span in spans)

    def path(span: Made) -> list[str]:
        above = by_id.get(span["parentSpanId"])
        return [*(path(above) if above else []), span["name"]]

    paths = {"/".join(path(span)): span for span in spans}
    [clip_id] = {w.clip_id for w in works}
    decoding = paths[f"{video_id}/{clip_id}/detections/decoding"]
    assert int(decoding["startTimeUnixNano"]) == round((T0 + timedelta(seconds=25)).timestamp() * 1e9)
    assert int(decoding["endTimeUnixNano"]) - int(decoding["startTimeUnixNano"]) == 4 * 10**9
    assert sorted(str(span.get("status")) for span in spans if span["name"] == "events") == ["None", "{'code': 2}"]
    assert "status" not in paths[f"{video_id}/{clip_id}/masks"]
    for span in spans:
        if above := by_id.get(span["parentSpanId"]):
            assert (
                int(above["startTimeUnixNano"])
                <= int(span["startTimeUnixNano"])
                <= int(span["endTimeUnixNano"])
                <= int(above["endTimeUnixNano"])
            )


def test_costs_are_by_stage_with_what_devices_waited(run: Run) -> None:
    works = [w for w in timeline.of_run(run) if w.stage in (*STAGES, "mapping")]
    lengths_s = {(w.video_id, w.clip_id): 1800.0 for w in works}
    found = {cost.stage: cost for cost in costs.by_stage(works, run.run_id, lengths_s)}
    assert next(iter(found)) == "masks"
    assert (found["masks"].device_s, found["masks"].gpu_s, found["fusion"].gpu_s) == (20.0, 20.0, 0.0)
    assert (found["mapping"].device_s, found["mapping"].elsewhere_s) == (7.0, 7.0)
    assert (found["waiting"].device_s, found["waiting"].gpu_s) == (20 + 4 + 5 + 4 + 1, 33.0)
    [whole] = [line for line in costs.lines(list(found.values()), 3600.0) if line.startswith("all")]
    total_s = 10 + 20 + 5 + 2 + 7 + 34
    assert [float(cell) for cell in whole.split()[1:3]] == [5, total_s]
    assert float(whole.split()[-1]) == 2 * total_s, "an hour of video costs twice what half an hour did"


def test_a_plan_is_at_the_pace_of_this_host(run: Run) -> None:
    works = [w for w in timeline.of_run(run) if w.stage in STAGES]
    lengths_s = {(w.video_id, w.clip_id): 36.0 for w in works}
    plan = costs.plan(works, lengths_s, videos=500, hours=2.0)
    assert plan.hours == pytest.approx((20 + 200 * (84 - 20)) / 3600), "its worker started once, for 20 s"
    assert plan.least_hours == pytest.approx(200 * 35 / 3600), "one GPU computed 35 s, one worker of the processor 2"
    assert plan.clips == 500
    assert plan.n_bytes == 200 * sum(w.n_bytes for w in works)
    with pytest.raises(InputError, match="was computed on this host"):
        costs.plan(works, lengths_s, 1, 1.0, host="elsewhere")


def test_a_run_that_is_half_done_costs_no_less_for_an_hour(run: Run) -> None:
    """One of ten clips of the video was begun; of a second one only its detections are there."""
    works = [w for w in timeline.of_run(run) if w.stage in STAGES]
    [first] = {(w.video_id, w.clip_id) for w in works}
    lengths_s = {first: 36.0, (first[0], "later"): 36.0, (first[0], ""): 360.0}
    manifest = replace(works[0], clip_id="", stage="manifest", worker="step", seconds=10.0, n_bytes=1000)
    begun = [*works, replace(next(w for w in works if w.stage == "detections"), clip_id="later"), manifest]
    found = {cost.stage: cost for cost in costs.by_stage(begun, run.run_id, lengths_s)}
    rates = {stage: cost.per_hour(cost.device_s) for stage, cost in found.items()}
    assert (rates["detections"], rates["masks"], rates["manifest"]) == (10.0 * 100, 20.0 * 100, 10.0 * 10)
    plan = costs.plan(begun, lengths_s, videos=1, hours=1.0)
    assert plan.least_hours == pytest.approx(100 * 35 / 3600), "as where all of it is done; no device waits for a manifest"
    whole_b = sum(w.n_bytes for w in works)
    assert plan.n_bytes == pytest.approx(100 * whole_b + 10 * 1000, rel=0.01)
    assert plan.clips == 100


def pace(videos: int, clips: int, start_s: float = 20.0, decode_s: float = 0.5) -> list[Work]:
    """What two workers did, video after video, each stage over all clips of one; a stage's worker starts where it has none yet."""
    works: list[Work] = []
    free_s, started = [0.0, 0.0], set()
    for video, (stage, seconds) in itertools.product(range(videos), (("detections", 3.0), ("masks", 12.0), ("fusion", 1.0))):
        asked_s = max(free_s) + 3.0
        free_s = [asked_s, asked_s]
        for clip in range(clips):
            slot = free_s.index(min(free_s))
            starting_s = 0.0 if (slot, stage) in started else start_s
            started.add((slot, stage))
            began_s = free_s[slot] + starting_s + decode_s
            device_s = dict.fromkeys(timeline.IDLE, 0.0) | {"starting": starting_s, "starved_decode": decode_s}
            at = T0 + timedelta(seconds=began_s)
            about = {"waited_s": {"queued": began_s - asked_s}, "device_s": device_s, "failed": False, "frames": 30, "n_bytes": 1000}
            works.append(Work(f"v{video}", f"c{clip}", stage, "r", "h", f"cpu{slot}-1", at, seconds, **about))
            free_s[slot] = began_s + seconds
    return works


def test_a_plan_from_a_run_that_was_cut_short_is_that_of_the_whole_run() -> None:
    whole = pace(videos=10, clips=4)
    lengths_s = {(w.video_id, w.clip_id): 10.0 for w in whole}
    end = max(w.ended_at for w in whole)
    wanted = costs.plan(whole, lengths_s, 10, 400 / 3600, host="h")
    assert wanted.hours == pytest.approx(timeline.active_s(whole) / 3600)
    assert "masks" not in wanted.unknown
    assert {"camera", "events"} <= set(wanted.unknown)
    for share in (0.3, 0.5, 0.7, 0.9):
        begun = [w for w in whole if w.ended_at <= T0 + share * (end - T0)]
        plan = costs.plan(begun, lengths_s, 10, 400 / 3600, host="h")
        assert plan.hours == pytest.approx(wanted.hours, rel=0.05), share
        assert plan.least_hours == pytest.approx(wanted.least_hours, rel=0.05), share
    early = costs.plan(whole[:4], lengths_s, 10, 400 / 3600, host="h")
    assert "masks" in early.unknown, "the plan says what is not in it"


def test_the_commands_take_the_latest_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from egoworld_ops.lake import latest

    latest.use(run)
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    asked = CliRunner()
    trace = tmp_path / "trace.json"
    for words, said in (
        (["timeline"], "cpu0"),
        (["timeline", "--chrome", str(trace)], "perfetto"),
        (["cost", "--price", "2"], "price / video h"),
        (["plan", "--videos", "3", "--hours", "1"], "3 videos, 1 hours: 1800 clips"),
    ):
        result = asked.invoke(egoworld, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert said in result.output
    assert json.loads(trace.read_bytes())["traceEvents"]


def test_a_trace_takes_the_place_of_no_device_pipe_link_or_file_of_the_lake(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "null.json").symlink_to("/dev/null")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "thesis.odt").write_text("mine")
    for place in (*sorted(tmp_path.iterdir()), run.path / "run.json", run.lake.root / "new.json", tmp_path / "gone" / "x.json"):
        before = place.read_bytes() if place.is_file() else None
        result = CliRunner().invoke(egoworld, ["timeline", run.run_id, "--chrome", str(place)])
        assert result.exit_code == 1, place
        assert "--chrome" in str(result.exception or result.output), place
        assert (place.read_bytes() if place.is_file() else None) == before
    assert (tmp_path / "pipe.json").is_fifo()
    assert (tmp_path / "null.json").is_symlink()
