"""What an acceptance found, as lines for a person, and as `acceptance.json` for machines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from egoworld_assets.acceptance.accuracy import Judged, Verdict

if TYPE_CHECKING:
    from egoworld_assets.acceptance.decoding import Decoded
    from egoworld_assets.acceptance.measuring import Chain, StageMeasured, Variant
    from egoworld_ops.lake.judging import Warned

_SHOWN = 5


@dataclass(slots=True)
class Acceptance:
    """All that was found.

    Args:
        about: machine, code, settings and weights, as the run's `run.json` has them.
        stages: each alone.
        judged: against the truth of the synthetic scene.
        variants: stages with other options.
        chain: all at once; None where a stage could not run.
        decoding: by the CPU and by the GPU; None where it was not measured.
        warned: metrics that warn of the videos that a person gave.
        pictures: contact sheets to look at.
        broken: what could not be done at all, one sentence each.
    """

    about: dict[str, Any]
    stages: list[StageMeasured] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    chain: Chain | None = None
    decoding: Decoded | None = None
    warned: list[Warned] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def against(self) -> list[str]:
        """All that speaks against accepting, one sentence each; empty where nothing does."""
        said = list(self.broken)
        said += [f"{s.stage}.{s.backend} has random numbers in the place of weights" for s in self.stages if s.random]
        said += [f"{s.stage}.{s.backend}: {s.failures[0]}{_and_more(len(s.failures))}" for s in self.stages if s.failures]
        blocked = [s.stage for s in self.stages if s.blocked and not s.failures]
        said += [f"{', '.join(blocked)}: without the stages that could not run nothing is known of these"] if blocked else []
        said += [f"{j.stage}: {j.figure.name} is outside its limit" for j in self.judged if j.verdict is Verdict.OUTSIDE]
        said += [f"{s.stage}.{s.backend} gives another table when it runs again" for s in self.stages if s.repeated is False]
        if self.chain and self.chain.failed:
            said.append(f"through the pool {self.chain.failed} results are missing")
        return said

    def unproven(self) -> list[str]:
        """The stages of which no range is known."""
        return list(dict.fromkeys(j.stage for j in self.judged if j.verdict is Verdict.UNPROVEN))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; a number that is not finite is a word."""
        against = self.against()
        said = {
            "accepted": not against,
            "against": against,
            "unproven": self.unproven(),
            "about": self.about,
            "stages": [asdict(s) | {"frames_per_s": s.frames_per_s} for s in self.stages],
            "accuracy": [asdict(j.figure) | {"stage": j.stage, "verdict": j.verdict.value} for j in self.judged],
            "variants": [asdict(v) for v in self.variants],
            "chain": asdict(self.chain) if self.chain else None,
            "decoding": asdict(self.decoding) if self.decoding else None,
            "warnings": [asdict(w) for w in self.warned],
            "pictures": self.pictures,
        }
        finite: dict[str, Any] = _finite(said)
        return finite

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        host = self.about.get("host", {})
        yield f"machine   {host.get('name')}, {host.get('cores')} cores, GPUs: {', '.join(host.get('gpus', [])) or 'none'}"
        git = self.about.get("git") or {}
        yield f"code      {git.get('commit', 'not a checkout')}{' with changes' if git.get('dirty') else ''}"
        yield from _of_stages(self.stages)
        yield from _of_accuracy(self.judged)
        yield from map(_of_variant, self.variants)
        if self.chain:
            yield _of_chain(self.chain)
        if self.decoding:
            yield _of_decoding(self.decoding)
        for warned in self.warned:
            yield f"warning   {warned.stage} of {len(warned.videos)} video(s) ({', '.join(warned.videos[:_SHOWN])}): {warned.said}"
        yield from (f"picture   {path}" for path in self.pictures)
        against = self.against()
        yield ""
        yield from (f"AGAINST   {said}" for said in against)
        if unproven := self.unproven():
            yield f"unproven  {', '.join(unproven)}: no range is known of these backends; look at the pictures before you trust them"
        yield "NOT ACCEPTED" if against else "accepted"


def _of_stages(stages: Sequence[StageMeasured]) -> Iterator[str]:
    yield f"\n{'alone':<12} {'backend':<21} {'device':<7} {'clips':>6} {'frames/s':>9} {'loading':>9} {'host':>9} {'GPU':>9}  again"
    for s in stages:
        again = {True: "the same", False: "DIFFERENT", None: "-"}[s.repeated]
        yield (
            f"{s.stage:<12} {s.backend + (' RANDOM' if s.random else ''):<21} {s.device:<7} {s.clips:>6} {_number(s.frames_per_s):>9} "
            f"{s.loading_s:>7.1f} s {_mb(s.host_mb):>9} {_mb(s.device_mb):>9}  {again}"
        )


def _of_accuracy(judged: Sequence[Judged]) -> Iterator[str]:
    from egoworld_ops.report.ground_truth import HEADER

    if judged:
        yield f"\n{'':<10}{HEADER}"
    yield from (f"{j.verdict.value:<10}{j.figure}" for j in judged)


def _of_variant(variant: Variant) -> str:
    said = f"\n{variant.stage} with {variant.option} = {variant.value} beside {variant.profile_value}: "
    if variant.compared is None:
        return f"{said}cannot run: {variant.reason}"
    found = variant.compared
    apart = [
        f"{c.column} in {c.rows} rows" + (f" by up to {c.maximum:.3g} {c.unit} (median {c.median:.3g})" if math.isfinite(c.maximum) else "")
        for c in found.columns
    ]
    rows = f"{found.rows} rows of both, {found.only_first} and {found.only_second} of one alone"
    differ = ("; ".join(apart) or "the same values") if found.rows else "nothing to compare"
    return f"{said}{_number(variant.times_as_fast)} times as fast; {rows}; {differ}"


def _of_chain(chain: Chain) -> str:
    of_gpus = zip(chain.duty.gpus, chain.duty.shares, strict=True)
    duty = ", ".join(f"{gpu} {share:.0%}" if share is not None else f"{gpu} does not tell" for gpu, share in of_gpus)
    busy = f"GPUs busy: {duty}" if duty else "no GPU was there to be busy"
    equal = (
        "the same tables"
        if chain.equal
        else "tables that differ from those of the stages alone: another number of threads, or other kernels"
    )
    return f"\nchain     {chain.seconds:.1f} s for {chain.video_s:.1f} s of video through the pool, {equal}; {busy}"


def _of_decoding(found: Decoded) -> str:
    on_gpu = (
        f"{_number(found.gpu_frames_per_s)} by the GPU, the same frames" if found.gpu_frames_per_s else f"none by a GPU: {found.reason}"
    )
    return f"decoding  {found.frames_per_s:.1f} frames/s by the CPU, {on_gpu}"


def _and_more(n: int) -> str:
    return f" (and {n - 1} more)" if n > 1 else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} MB"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
