"""The SQL of `egoworld.duckdb`: which views there are, what files they read, and how they find the lake they lie in.

A view holds no path of the lake: it takes the folder of the database it is in, so that a lake that was copied or moved answers from itself.
DuckDB has no word for that folder, but it keeps its temporary files beside the database it was opened with, in `<database>.tmp`, and says so in a
setting (DuckDB 1.0 to 2.0). Where the database is attached to another one, that setting tells of the other; then the folder is the one the database
was written in, and the query ends in an error where it lies elsewhere by now. Every view is guarded so: no query has rows of another lake.

Files are told by their places. `video_id` and `clip_id` are those of the folders, so that a query for one video opens the files of that video alone,
and a file counts only where its rows have the same: copies that programs for synchronization made of files and folders are in no view.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pydantic import ValidationError

from egoworld_ops.contract import links, schema, world
from egoworld_ops.contract.quality import Bounds
from egoworld_ops.errors import SetupError
from egoworld_ops.lake.lake import (
    LAKE_TABLES,
    PLACEHOLDER_SUFFIX,
    RELEASED_TABLES,
    RUN_TABLES,
    VIDEO_TABLES,
    Lake,
    Run,
    clip_depth,
    table_glob,
)
from egoworld_ops.lake.runs import contract_of, described
from egoworld_ops.query import asked
from egoworld_ops.release import place

FILE_NAME = "egoworld.duckdb"
_RUN_FACTS = ("settings", "frozen", "git", "packages", "python", "weights", "inputs", "parquet", "conventions", "host")
"""What the view `runs` has of `run.json`, as JSON."""
_SCRATCH = "current_setting('temp_directory')"
_OPENED_HERE = f"regexp_matches({_SCRATCH}, '(^|/){FILE_NAME.replace('.', '[.]')}[.]tmp$')"
_ABOUT = (
    "Views over the files of this lake, made by egoworld and written anew whenever they change: tables of your own in this file are lost. "
    "Open it read-only and attach a database of your own: ATTACH 'mine.duckdb' AS mine (READ_WRITE); CREATE TABLE mine.t AS SELECT ... FROM masks"
)
_NO_RUN = "this lake does not say which run is the latest: name one with `egoworld runs use RUN`, or process a video"


def statements(lake: Lake) -> list[str]:
    """The SQL that makes all views."""
    maker, run = _Maker(lake), lake.latest_run()
    said = [f"CREATE SCHEMA {name}" for name in ("raw", "runs", "release", "releases", maker.marker)]
    said += [f"CREATE VIEW about AS SELECT {_text(_ABOUT)} AS about, {_text(run.run_id) if run else 'NULL'} AS latest_run"]
    said += [maker.of_lake(name) for name in LAKE_TABLES]
    for name in RUN_TABLES:
        said += maker.views(name, run)
    for view in world.VIEWS.values():
        said += maker.in_the_world(view, run)
    said += maker.links(run)
    for asked_view in asked.VIEWS:
        said += maker.asked(asked_view, run)
    said += [maker.runs(), maker.run_states()]
    return [*said, *_comments()]


class _Maker:
    """Puts the views of one lake into words."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._written_in = lake, str(lake.root.absolute())
        self._all_runs = lake.runs()
        self._any_older = any(self._is_older(run) for run in self._all_runs)
        self.marker = f"lake_{hashlib.sha256(self._written_in.encode()).hexdigest()[:8]}"
        """A schema by which an attached database is known for one that was written in this folder."""

    def of_lake(self, name: str) -> str:
        """The view of a table of the whole lake."""
        rows = f"{_columns(name)} FROM {self._files(f'{name}/{name}.parquet')}"
        return f"CREATE VIEW {name} AS SELECT {rows} WHERE {self._guard()}"

    def views(self, name: str, run: Run | None) -> Iterator[str]:
        """The views of one table: of the latest run, of all runs, of every row in the files, and of releases."""
        for shown in ("", "runs.", *(("release.", "releases.") if name in RELEASED_TABLES else ())):
            yield f"CREATE VIEW {shown}{name} AS {self._shown(shown, name, run)}"
        raw = self._none(name, self._guard())
        if self._all_runs:
            raw = f"{self._all_rows(name, 'run_id=*', self._any_older)} AND {self._guard()}"
        yield f"CREATE VIEW raw.{name} AS {raw}"

    def _shown(self, schema_: str, name: str, run: Run | None, owned: bool = True) -> str:
        """The rows of a table that a schema shows: that of the latest run without a name, of all runs, of a release or of all.

        Args:
            owned: leave out rows of frames that their clip does not own.
        """
        if schema_ == "release.":
            return self._released(name, place.shown(self._lake).resolve().name)
        if schema_ == "releases.":
            return self._released(name, "*")
        if schema_ == "runs.":
            return self._counted(name, "run_id=*", self._any_older, owned) if self._all_runs else self._none(name, self._guard())
        return self._none(name, _refusal(_NO_RUN)) if run is None else self._counted(name, run.path.name, self._is_older(run), owned)

    def _none(self, name: str, guard: str) -> str:
        return f"SELECT '' AS run_id, {_columns(name)} FROM {self._stand_in(name)} WHERE {guard}"

    def in_the_world(self, view: world.WorldView, run: Run | None) -> Iterator[str]:
        """A view that is made of others: of the latest run, of all runs, and of releases."""
        for shown in ("", "runs.", "release.", "releases."):
            relations = {name: f"({self._shown(shown, name, run)})" for name in view.reads}
            yield f"CREATE VIEW {shown}{view.table.name} AS {view.sql(relations, ('run_id',))}"

    def links(self, run: Run | None) -> Iterator[str]:
        """The views that link the clips of a video: computed of the latest run and of all runs; releases hold the rows."""
        for name in links.LINKS:
            for shown in ("", "runs.", "release.", "releases."):
                yield f"CREATE VIEW {shown}{name} AS {self._linked(shown, name, run)}"

    def asked(self, view: asked.AskedView, run: Run | None) -> Iterator[str]:
        """A view that people ask for: of the latest run, of all runs, and of releases where they have what it is made of."""
        for shown in ("", "runs.", *(("release.", "releases.") if view.is_released else ())):
            relations = {name: self._relation(shown, name, run) for name in view.reads}
            yield f"CREATE VIEW {shown}{view.name} AS {view.sql(relations)}"

    def _relation(self, shown: str, name: str, run: Run | None) -> str:
        if name == asked.BOUNDS:
            return asked.bounds_of(self._moved_bounds())
        return f"({self._linked(shown, name, run) if name in links.LINKS else self._shown(shown, name, run)})"

    def _linked(self, shown: str, name: str, run: Run | None) -> str:
        """Links: releases hold the rows, for runs they are computed from rows of all frames."""
        if shown in ("release.", "releases."):
            return self._shown(shown, name, run)
        link = links.LINKS[name]
        return link.sql({table: f"({self._shown(shown, table, run, owned=False)})" for table in link.reads})

    def _moved_bounds(self) -> Iterator[tuple[str, str, str, Bounds]]:
        """Bounds of quality metrics as the settings of each run have them; none of a run whose `run.json` is broken."""
        for run in self._all_runs:
            with suppress(SetupError, AttributeError, TypeError, ValidationError):
                for stage, bounds in (described(run).get("settings") or {}).get("quality", {}).items():
                    for metric, said in bounds.items():
                        yield run.run_id, stage, metric, Bounds.model_validate(said)

    def runs(self) -> str:
        """One row a run, of nulls where its `run.json` is broken: that must not hide the others."""
        facts = "".join(f", json_extract(said, '$.{name}') AS {name}" for name in _RUN_FACTS)
        if not self._all_runs:
            none = "CREATE VIEW runs AS SELECT '' AS run_id, NULL::TIMESTAMPTZ AS created_at"
            return f"{none}{facts} FROM (SELECT NULL::JSON AS said) WHERE false"
        files = f"read_blob({self._path('run_id=*/run.json')}) WHERE {_of_a_run(1)} AND {self._guard()}"
        read = f"SELECT {_folder(-2, 'run_id=')} AS run_id, {_json('content')} AS said FROM {files}"
        created = "TRY_CAST(json_extract_string(said, '$.created_at') AS TIMESTAMPTZ) AS created_at"
        return f"CREATE VIEW runs AS SELECT run_id, {created}{facts} FROM ({read}) ORDER BY created_at"

    def _counted(self, name: str, run: str, older: bool, owned: bool = True) -> str:
        """Rows that count, as table `states` has it; of frames that their clip owns, or of all."""
        rows, guard = self._all_rows(name, run, older), self._guard()
        if name == "states":
            return f"{rows} AND {guard}"
        if name == "metrics":
            return f"{as_measured(rows, self._all_rows('states', run, older), ('run_id',))} WHERE {guard}"
        said, clip = f"({self._all_rows('states', run, older)})", " AND s.clip_id = r.clip_id"
        if name in VIDEO_TABLES:
            said, clip = f"(SELECT * FROM {said} WHERE stage = 'manifest' AND state IN ('done', 'failed'))", ""
        elif name == "failures":
            said, clip = f"(SELECT * FROM {said} WHERE error_class IS NOT NULL)", f"{clip} AND s.stage = r.stage"
        else:
            said = f"(SELECT * FROM {said} WHERE stage = '{name}' AND state = 'done')"
        counted = f"SELECT r.* FROM ({rows}) AS r SEMI JOIN {said} AS s ON s.run_id = r.run_id AND s.video_id = r.video_id{clip}"
        if not owned or "frame_index" not in _names(name) or name == "failures":
            return f"{counted} WHERE {guard}"
        clips = f"(SELECT run_id, video_id, clip_id, own_start, own_end FROM ({self._all_rows('clips', run, older)}))"
        of_clip = "c.run_id = r.run_id AND c.video_id = r.video_id AND c.clip_id = r.clip_id"
        own = "r.frame_index >= c.own_start AND r.frame_index < c.own_end"
        return f"SELECT r.* FROM ({counted}) AS r JOIN {clips} AS c ON {of_clip} WHERE {own} AND {guard}"

    def _all_rows(self, name: str, run: str, older: bool) -> str:
        """All rows of the files of a table, in one run or in all."""
        depth = clip_depth(name)
        ids = {"run_id": _text(run.removeprefix("run_id=")) if "*" not in run else _folder(-3 - depth, "run_id=")}
        ids["video_id"] = _folder(-2 - depth, "video_id=")
        if depth:
            ids["clip_id"] = _folder(-2, "clip_id=")
        columns = ", ".join(f"{ids.get(c, f'f.{c}')} AS {c}" for c in ["run_id", *_names(name)])
        at_home = [f"f.{c} = {folder}" for c, folder in ids.items() if c != "run_id"]
        if name == "failures":
            at_home.append("split_part(filename, '/', -1) = f.stage || '.failure.parquet'")
        if "*" in run:
            at_home.append(_of_a_run(2 + depth))
        return f"SELECT {columns} FROM {self._files(f'{run}/{table_glob(name)}', older)} AS f WHERE {' AND '.join(at_home)}"

    def _released(self, name: str, folder: str) -> str:
        """Rows of a release, or of all: `folder` is that of the release, below `release`."""
        part = f"part-{'[0-9a-f]' * 8}-{'[0-9]' * 5}*.parque[t{PLACEHOLDER_SUFFIX[-1]}]"
        if "*" not in folder and not any((place.home(self._lake) / folder / name).glob(part)):
            folder = place.STAND_IN  # a release from before there was this table
        run_id = _text(folder.removeprefix("run_id=")) if folder.startswith("run_id=") else _folder(-3, "run_id=")
        at_home = "(run_id=[a-z0-9_-]+|_contract)/[^/]*" if folder == "*" else "[^/]*/[^/]*"
        rows = f"SELECT {run_id} AS run_id, {_columns(name)} FROM {self._files(f'release/{folder}/{name}/{part}', folder == '*')}"
        of_a_part = f"regexp_matches(filename, '(^|/){at_home}/part-[0-9a-f]{{8}}-[0-9]{{5,}}[.]parque[t{PLACEHOLDER_SUFFIX[-1]}]$')"
        return f"{rows} WHERE {self._guard()} AND {of_a_part}"

    def run_states(self) -> str:
        """Clips (videos, of the manifest) by run, stage and state, as table `states` has them; a failure that waits for a person is `dead_letter`."""
        rows = f"SELECT '' AS run_id, * FROM {self._stand_in('states')}"
        if self._all_runs:
            rows = self._all_rows("states", "run_id=*", self._any_older)
        state = "CASE WHEN state = 'failed' AND dead_letter THEN 'dead_letter' ELSE state END AS state"
        counted = f"SELECT run_id, stage, {state}, count(*) AS clips FROM ({rows})"
        return f"CREATE VIEW run_states AS {counted} WHERE {self._guard()} GROUP BY ALL ORDER BY ALL"

    def _stand_in(self, name: str) -> str:
        return self._files(str(place.stand_in(self._lake, name).relative_to(self._lake.root)))

    def _is_older(self, run: Run) -> bool:
        """Whether files of a run may lack columns of this contract. To find out, DuckDB has to open all of them before it answers."""
        try:
            return contract_of(run) != schema.SCHEMA_VERSION
        except SetupError:
            return True

    def _files(self, pattern: str, by_name: bool = False) -> str:
        options = "hive_partitioning = false, filename = true" + (", union_by_name = true" if by_name else "")
        return f"read_parquet({self._path(pattern)}, {options})"

    def _path(self, pattern: str) -> str:
        """A pattern below the folder of the database, as an expression that DuckDB knows the value of when it looks for files."""
        length = f"length({_SCRATCH}) - {len(FILE_NAME) + len('.tmp')}"
        here = f"CASE WHEN {_OPENED_HERE} THEN left({_SCRATCH}, {length}) ELSE {_text(self._written_in + '/')} END"
        return rf"regexp_replace({here}, '([*?\[])', '[\1]', 'g') || {_text(pattern)}"

    def _guard(self) -> str:
        """True where the files that `_path` names are those beside the database of this view; else the query ends."""
        written = f"{self._written_in}/{FILE_NAME}"
        here = f"CASE WHEN {_OPENED_HERE} THEN d.path || '.tmp' = {_SCRATCH} ELSE d.path = {_text(written)} END"
        databases = f"SELECT database_name FROM duckdb_schemas() WHERE schema_name = '{self.marker}'"
        cure = (
            f"this catalog cannot tell which folder it lies in. Open {FILE_NAME} itself, read-only, and attach your database to it; or attach "
            f"{FILE_NAME} by its whole path, once `egoworld queries` was run for the lake at that path"
        )
        unknown = f"count(*) = 0 OR NOT bool_and({here})"
        found = f"FROM duckdb_databases() AS d WHERE d.database_name IN ({databases})"
        return f"(SELECT CASE WHEN {unknown} THEN error({_text('egoworld: ' + cure)}) ELSE true END {found})"


def as_measured(rows: str, states: str, keys: Sequence[str] = ()) -> str:
    """The rows of `metrics` of stages of videos that were measured as they count now: with each clip's digest, and no others.

    Args:
        rows, states: queries for rows of both tables.
        keys: columns that tell videos apart beside `video_id`.
    """
    of_stage = ", ".join([*keys, "video_id", "stage"])
    done = f"(SELECT {of_stage}, clip_id, digest FROM ({states}) WHERE state = 'done') AS s"
    measured = f"(SELECT DISTINCT {of_stage}, clip_id, digest FROM ({rows}) WHERE digest IS NOT NULL) AS m"
    both = f"{done} FULL JOIN {measured} USING ({of_stage}, clip_id, digest)"
    now = f"SELECT {of_stage} FROM {both} GROUP BY ALL HAVING bool_and(s.digest IS NOT NULL AND m.digest IS NOT NULL)"
    return f"SELECT r.* FROM ({rows}) AS r SEMI JOIN ({now}) AS n USING ({of_stage})"


def _refusal(reason: str) -> str:
    return f"(SELECT CASE WHEN count(*) >= 0 THEN error({_text('egoworld: ' + reason)}) ELSE true END FROM duckdb_databases())"


def _comments() -> Iterator[str]:
    yield f"COMMENT ON VIEW about IS {_text(_ABOUT)}"
    for name in (*schema.TABLES, *world.VIEWS, *links.LINKS):
        yield f"COMMENT ON VIEW {name} IS {_text(schema.table(name).doc)}"
    for view in asked.VIEWS:
        yield f"COMMENT ON VIEW {view.name} IS {_text(view.doc)}"


def _folder(at: int, prefix: str) -> str:
    """What follows `prefix` in the name of the folder a file lies in; counted from the end, -1 is the file."""
    return f"substr(split_part(filename, '/', {at}), {len(prefix) + 1})"


def _json(blob: str) -> str:
    """Bytes as JSON, null where they are none. Ours are plain ASCII; at other bytes `decode` would end the query."""
    return f"(CASE WHEN regexp_matches(hex({blob}), '^([0-7][0-9A-F])*$') THEN TRY_CAST(decode({blob}) AS JSON) END)"


def _of_a_run(depth: int) -> str:
    """Whether the folder so far above a file is that of a run by its name, and no copy of one."""
    return f"regexp_matches(filename, '(^|/)run_id=[a-z0-9_-]+(/[^/]*){{{depth}}}$')"


def _names(table: str) -> Sequence[str]:
    return [c.name for c in schema.table(table).columns]


def _columns(table: str) -> str:
    return ", ".join(_names(table))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
