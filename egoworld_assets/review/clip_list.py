"""The list of a run's clips, worst first by a metric, and the place of a clip in it; its filters are in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from egoworld_assets.review.asked import PAGE_SIZES, Asked, Paging
from egoworld_assets.review.index import Index
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops import operators
from egoworld_ops.contract import quality
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.verdict_words import VERDICT_WORDS

VERDICTS = ("none", *VERDICT_WORDS)
STATES = ("done", "stale", "failed", "dead letter", "blocked", "missing", "pending", "damaged", "unreadable")
_VALUED = (
    "FROM clips AS c LEFT JOIN (SELECT video_id, clip_id, value FROM metrics WHERE stage = $metric_stage AND metric = $metric) AS own "
    "ON own.video_id = c.video_id AND own.clip_id = c.clip_id "
    "LEFT JOIN (SELECT video_id, value FROM metrics WHERE stage = $metric_stage AND metric = $metric AND clip_id = '') AS whole "
    "ON whole.video_id = c.video_id"
)


@dataclass(frozen=True, slots=True)
class ClipList:
    """Some of a run's clips in an order.

    Args:
        filters: as the address has them: metric, order, stage, state, verdict, q.
        known: stage and metric of those that can be chosen, by the name that the address has.
    """

    filters: Mapping[str, str]
    known: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, asked: Asked, index: Index) -> ClipList:
        """What the address says.

        Raises:
            BadRequest: it names what there is not.
        """
        known = _metrics_of(index)
        filters = {
            "metric": asked.one_of("metric", dict.fromkeys(known)),
            "order": asked.one_of("order", ("lowest", "highest")),
            "stage": asked.one_of("stage", tuple(operators.stages())),
            "state": asked.one_of("state", STATES),
            "verdict": asked.one_of("verdict", VERDICTS),
            "q": asked.text("q"),
        }
        return cls(filters, known)

    @property
    def metric(self) -> tuple[str, str]:
        """Stage and name of the metric that is listed by; empty where none is."""
        return self.known.get(self.filters["metric"], ("", ""))

    @property
    def order(self) -> str:
        """Which values come first: those asked for, else those at the bad end."""
        return self.filters["order"] or (_worst_end(*self.metric) if self.filters["metric"] else "lowest")

    def total(self, index: Index) -> int:
        """How many clips it has."""
        wanted, values = self._wanted()
        [n] = index.rows(f"SELECT count(*) AS n FROM clips AS c WHERE {wanted}", values)
        return int(n["n"])

    def rows(self, index: Index, n: int, offset: int) -> list[dict[str, Any]]:
        """Some of its clips, each with `value`, whether that is `of_video`, its `verdict`, and how many of its stages are in each of `states`."""
        wanted, values = self._wanted()
        stage, metric = self.metric
        by = f"value {'DESC' if self.order == 'highest' else 'ASC'} NULLS LAST, " if metric else ""
        return index.rows(
            f"WITH page AS (SELECT c.*, coalesce(own.value, whole.value) AS value, own.value IS NULL AS of_video {_VALUED} WHERE {wanted} "
            f"ORDER BY {by}c.video_id, c.frame_start, c.clip_id LIMIT {n} OFFSET {offset}) "
            "SELECT page.*, s.states, v.word AS verdict FROM page LEFT JOIN verdicts AS v USING (video_id, clip_id) "
            "LEFT JOIN (SELECT video_id, clip_id, histogram(state) AS states FROM states "
            "WHERE (video_id, clip_id) IN (SELECT (video_id, clip_id) FROM page) GROUP BY ALL) AS s USING (video_id, clip_id) "
            f"ORDER BY {by}video_id, frame_start, clip_id",
            values | {"metric_stage": stage, "metric": metric},
        )

    def link(self, run_id: str, row: Mapping[str, Any], at: int) -> str:
        """The address of the page of a clip that is in this place of the list, from 0."""
        query = urlencode({name: value for name, value in self.filters.items() if value} | {"at": at})
        return f"{clip_address(run_id, row['video_id'], row['clip_id'])}?{query}"

    def beside(self, index: Index, run_id: str, video_id: str, clip_id: str, at: int | None) -> dict[str, str]:
        """The addresses of the clips before and after one, as `prev` and `next`.

        Args:
            at: its place in the list; None where it was not come to from a list: then that by name.
        """
        if at is None:
            [row] = index.rows(
                "SELECT count(*) AS n FROM clips AS c, (SELECT * FROM clips WHERE video_id = $v AND clip_id = $c LIMIT 1) AS this "
                "WHERE (c.video_id, c.frame_start, c.clip_id) < (this.video_id, this.frame_start, this.clip_id)",
                {"v": video_id, "c": clip_id},
            )
            at = int(row["n"])
        rows = {at - 1 + n: row for n, row in enumerate(self.rows(index, 3, at - 1))} if at else dict(enumerate(self.rows(index, 2, 0)))
        return {name: self.link(run_id, rows[n], n) for name, n in (("prev", at - 1), ("next", at + 1)) if n in rows}

    def _wanted(self) -> tuple[str, dict[str, Any]]:
        """The condition on clips `c`, and its values."""
        stage, state = self.filters["stage"], self.filters["state"]
        parts, values = ["contains(c.video_id, $q)"], {"q": self.filters["q"]}
        if state:
            where = "state = $state" + (" AND stage = $stage" if stage else "")
            parts.append(f"(c.video_id, c.clip_id) IN (SELECT (video_id, clip_id) FROM states WHERE {where})")
            values |= {"state": state} | ({"stage": stage} if stage else {})
        if verdict := self.filters["verdict"]:
            given = "SELECT (video_id, clip_id) FROM verdicts" + ("" if verdict == "none" else " WHERE word = $verdict")
            parts.append(f"(c.video_id, c.clip_id) {'NOT ' if verdict == 'none' else ''}IN ({given})")
            values |= {} if verdict == "none" else {"verdict": verdict}
        return " AND ".join(parts), values


def clips_page(request: Request) -> Response:
    """Clips, worst first by a metric."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    listed, paging = ClipList.of(asked, index), Paging.of(asked)
    rows = listed.rows(index, paging.size, paging.offset)
    links = [listed.link(run.run_id, row, paging.offset + n) for n, row in enumerate(rows)]
    stage, metric = listed.metric
    about = next((m for m in quality.metrics(stage) if m.name == metric), None)
    paged: dict[str, Any] = {"rows": list(zip(links, rows, strict=True)), "total": listed.total(index), "paging": paging, "asked": asked}
    filters: dict[str, Any] = {**listed.filters, "size": paging.size}
    choices: dict[str, Any] = {"metrics": list(listed.known), "stages": list(operators.stages()), "all_states": STATES}
    choices |= {"verdicts": VERDICTS, "sizes": PAGE_SIZES}
    return page("clips", about=about, order=listed.order, filters=filters, **paged, **choices, **shown.common(request, run, index))


def clip_address(run_id: str, video_id: str, clip_id: str) -> str:
    """Where the page of a clip is."""
    return "/run/{}/video/{}/clip/{}".format(*(quote(name, safe="") for name in (run_id, video_id, clip_id)))


def _metrics_of(index: Index) -> dict[str, tuple[str, str]]:
    """Stage and metric of those that are declared, and of others that some video has, by the name that the address has."""
    declared = [(stage, metric.name) for stage in (MANIFEST, *operators.stages()) for metric in quality.metrics(stage)]
    found = [(row["stage"], row["metric"]) for row in index.rows("SELECT stage, metric FROM metric_names")]
    return {f"{stage}.{name}": (stage, name) for stage, name in sorted({*declared, *found})}


def _worst_end(stage: str, name: str) -> str:
    """At which end of a metric's values the bad ones are: that at which it warns."""
    metric = next((m for m in quality.metrics(stage) if m.name == name), None)
    return "highest" if metric is not None and metric.maximum is not None and metric.minimum is None else "lowest"
