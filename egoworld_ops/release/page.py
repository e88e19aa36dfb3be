"""The page that lies in a release, `README.md`: what is in it, how to read it, and how far its rows are from the truth, where that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from egoworld_ops.contract import schema
from egoworld_ops.release.cards import said
from egoworld_ops.release.place import LEFT_OUT_NAME, ReleaseManifest

_SHOWN = 20


def page(manifest: ReleaseManifest, cards: Mapping[str, bytes]) -> bytes:
    """The page as Markdown: the same for the same release.

    Args:
        cards: by video, the bytes of the truth cards that the release carries.
    """
    videos = [video_id for part in manifest.parts for video_id in part.videos]
    lengths = "are kept" if manifest.parquet.get("assumed_metric") else "are null"
    lines = [
        f"# Release of run {manifest.run_id}",
        "",
        f"Videos: {len(videos)}, in parts: {len(manifest.parts)}; schema version {manifest.schema}. Each owned frame once, sorted.",
        "`release.json` names every file with its SHA-256. Each file says what its columns mean, with units and frames, in its metadata.",
        f"Where `metric` is false, lengths that rest on an assumed focal length {lengths}.",
        "",
        "    import pyarrow.parquet as pq",
        '    rows = pq.read_table("hand_pose", partitioning=None)',
        "",
        "| table | rows | a row is |",
        "| --- | --- | --- |",
        *(f"| `{table}` | {n} | {schema.table(table).doc} |" for table, n in sorted(manifest.rows.items())),
        "",
        *_licences(manifest),
        *_chosen(manifest),
        *_incomplete(manifest),
        *_truth(cards, len(videos)),
    ]
    return ("\n".join(lines).rstrip() + "\n").encode()


def _licences(manifest: ReleaseManifest) -> Iterator[str]:
    if not manifest.licences:
        return
    yield from ("## Licences of the weights behind the rows", "", "| licence | commercial use | weights |", "| --- | --- | --- |")
    for name, about in manifest.licences.items():
        yield f"| [{name}]({about['url']}) | {about['commercial']} | {', '.join(about['weights'])} |"
    yield ""


def _chosen(manifest: ReleaseManifest) -> Iterator[str]:
    if manifest.verdicts is None:
        return
    asked, told = manifest.verdicts, manifest.verdicts["left_out"]
    which = (
        f"Only clips that people call {asked['verdict']}."
        if asked["verdict"]
        else f"No clips that people call {' or '.join(asked['without'])}."
    )
    counts = ", ".join(f"{n} {word}" for word, n in told.items()) or "none"
    yield from ("## Chosen by people's verdicts", "", f"{which} Clips left out: {counts}; `{LEFT_OUT_NAME}` names each and says why.")
    yield from (f"SHA-256 over the verdicts that stood: {asked['snapshot']}.", "")


def _incomplete(manifest: ReleaseManifest) -> Iterator[str]:
    if not manifest.incomplete:
        return
    yield from ("## Incomplete videos", "", f"{len(manifest.incomplete)} videos lack results; `release.json` has counts by stage:", "")
    yield from (f"- {video_id}" for video_id in list(manifest.incomplete)[:_SHOWN])
    if (more := len(manifest.incomplete) - _SHOWN) > 0:
        yield f"- and {more} more"
    yield ""


def _truth(cards: Mapping[str, bytes], n_videos: int) -> Iterator[str]:
    yield from ("## How far it is from the truth", "")
    if not cards:
        yield "Not known: no video of it was scored against a truth (`egoworld score`)."
        return
    yield f"Scored (`egoworld score`): {len(cards)} of {n_videos} videos, on the very rows of this release; their cards are in `truth_cards/`."
    for video_id, content in cards.items():
        yield from _card(video_id, said(content))


def _card(video_id: str, card: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"### {video_id}", "", f"Truth: {card['source']}, {card['frames']} frames.", "")
    yield from ("| figure | value | unit | over |", "| --- | --- | --- | --- |")
    judged = []
    for measured in card["stages"].values():
        for score in measured["scores"]:
            value = "none" if score["value"] is None else f"{score['value']:.4g}"
            yield f"| {score['name']} | {value} | {score['unit']} | {score['n']} |"
        judged += measured["calibrations"]
    if judged:
        yield from ("", "| confidence and what is right | off by | share right by bin |", "| --- | --- | --- |")
        for each in judged:
            bins = ", ".join(f"{b['low']:g} to {b['high']:g}: {b['right']:.0%} of {b['n']}" for b in each["bins"])
            yield f"| {each['name']} | {each['error']:.3f} | {bins} |"
