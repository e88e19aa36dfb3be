"""Small lakes for these scenarios: a quick chain that always gives the same rows, and comparisons of the results."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_assets.chain import bookkeeping, configuration, pipeline
from egoworld_ops import ledger, operators
from egoworld_ops.errors import OperatorCrash
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files import locks
from egoworld_ops.files.tables import digest_at, read_table
from egoworld_ops.lake import lake
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import catalog
from egoworld_ops.raw import register
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings, StageSettings, load_settings
from gpu_workers.pool import Done, Failed
from tests import lakes
from tests.egoworld_ops import media

CUT, FRAMES = 24, 48
Snapshot = dict[str, tuple[Any, Any]]
"""By path below a run: the rows, and the digest in the footer."""


class QuickPool:
    """Rows that depend on the task's key alone, in no time. `masks` of a video's second clip always crashes."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            clip = task.clip
            if task.stage == "masks" and clip.frame_start:
                yield Failed(task, OperatorCrash(f"clip {clip.clip_id}", "ValueError: bad", "Report it"), "Traceback\n  boom", 0.1)
                continue
            rng = np.random.default_rng(int(task.key[:12], 16))
            frames = np.arange(clip.frame_start, clip.frame_end)
            yield Done(task, lakes.stage_rows(task.stage, clip.video_id, clip.clip_id, frames, rng), 0.1)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: a loss of power is simulated, and kills leave the page cache."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="egoworld-runs-", dir=memory if memory.is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def make_video(folder: Path, name: str = "two", cuts: tuple[int, ...] = (CUT,), n_frames: int = FRAMES) -> Path:
    """Still scenes without hands: every stage runs and has next to nothing to do."""
    folder.mkdir(parents=True, exist_ok=True)
    return media.make(folder / f"{name}.mp4", n_frames, size=(160, 120), picture=media.scenes(cuts))


def chain(root: Path) -> list[Settings]:
    """Settings of two runs; the second links the results of the first, except for its last stage."""
    first = load_settings("laptop").model_copy(update={"lake": root / "lake", "raw": root / "raw", "retry_after_s": ()})
    mapping = StageSettings(backend="dex", dex={"scaling": 1.5})
    return [first, first.model_copy(update={"stages": {**first.stages, "mapping": mapping}})]


def go(settings: list[Settings]) -> None:
    """Register, run the chain with each of the settings, write the catalog."""
    for chosen in settings:
        video_ids = register.register(chosen.lake, [chosen.raw]).video_ids
        video_ids = video_ids or list(registered(Lake(chosen.lake)))
        run = configuration.open_run(chosen)
        for _ in pipeline.process(run, video_ids, chosen, QuickPool()):
            pass
        catalog.write_catalog(run.lake)


def forget(root: Path) -> None:
    """As if this process had ended: its open files below a folder are closed, its locks released."""
    for place in [place for place in bookkeeping._OPEN if Path(place[0]).is_relative_to(root)]:
        bookkeeping._OPEN.pop(place).close()
    for path in [path for path in locks._held if path.is_relative_to(root)]:
        locks.let_go(path.parent)


def snapshot(run: lake.Run) -> Snapshot:
    """All tables of a run, without values that depend on times and hosts."""
    found: Snapshot = {}
    for path in sorted(run.path.rglob("*.parquet")):
        name = path.name.removesuffix(".parquet")
        table = "failures" if name.endswith(".failure") else name
        rows = read_table(path, table)
        if table == "metrics":
            rows = _without_times(rows)
        found[str(path.relative_to(run.path))] = (rows, digest_at(path))
    return found


def _without_times(metrics: pa.Table) -> pa.Table:
    """Sums of floating-point numbers are rounded: they depend on the order in which threads add them."""
    kept = metrics.filter(pc.not_equal(metrics["metric"], "compute_s")).drop_columns(["computed_at"])
    return kept.set_column(kept.schema.get_field_index("value"), "value", pc.round(kept["value"], 9))


def same(a: Snapshot, b: Snapshot, what: str) -> None:
    """Fail where two runs do not hold the same."""
    assert a.keys() == b.keys(), f"{what}: only in one of them: {sorted(a.keys() ^ b.keys())}"
    for path, (rows, digest) in a.items():
        assert digest == b[path][1], f"{what}: {path} has another digest"
        assert pa.Table.equals(rows, b[path][0]), f"{what}: {path} has other rows"


def metas_say_what_files_say(run: lake.Run) -> None:
    """Each `meta.json` knows the files beside it."""
    for folder in run.path.glob("video_id=*/clip_id=*"):
        said = json.loads((folder / "meta.json").read_text())
        digests = {path.stem: digest_at(path) for path in folder.glob("*.parquet")}
        assert {name: (entry or {}).get("digest") for name, entry in said.items()} == digests, f"{folder}/meta.json is behind"


def no_temporaries(root: Path) -> None:
    """No temporary file is left."""
    left = sorted(str(path.relative_to(root)) for path in root.rglob(".tmp-*"))
    assert not left, f"temporary files are left: {left}"


def ledger_agrees(settings: Settings, run: lake.Run, clips: int | None = None) -> None:
    """Rebuilding the ledger from the files changes nothing; if nothing failed, each stage has the right number of clips done."""
    book = bookkeeping.ledger_of(settings.lake, settings.ledger)
    rebuilt = ledger.rebuild(book, Lake(settings.lake))
    assert (rebuilt.changed, rebuilt.reset, rebuilt.running, rebuilt.unreadable) == (0, 0, 0, []), rebuilt
    if clips is not None:
        counts = book.counts(run.run_id)
        done = {stage: dict(counts[stage]) for stage in operators.stages()}
        assert all(found == {ledger.State.DONE: clips} for found in done.values()), done


def catalog_answers(store: Lake) -> None:
    """The catalog can be opened, and its views read."""
    import duckdb

    with duckdb.connect(str(store.root / catalog.FILE_NAME), read_only=True) as connection:
        for view in ("intake", "clips", "runs.masks", "runs.failures"):
            connection.execute(f"SELECT count(*) FROM {view}").fetchall()
