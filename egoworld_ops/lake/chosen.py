"""Clips chosen by what people said of them: the one place that releases and exports ask which clips they take, and why the others not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from egoworld_ops.errors import BadSettings
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import verdicts
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.verdicts import ClipKey, Verdict
from egoworld_ops.verdict_words import VERDICT_WORDS, VerdictWord

NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of clips, by the verdicts that stood when it was made.

    Args:
        verdict: only clips of this verdict are taken; None takes those nobody judged too.
        without: clips of these verdicts are not taken.
        stands: the verdicts on the run's clips that stand.
    """

    verdict: VerdictWord | None
    without: Sequence[VerdictWord]
    stands: Mapping[ClipKey, Sequence[Verdict]]

    def takes(self, clip: ClipKey) -> bool:
        """Whether a clip is chosen. One with a verdict on some of its frames is chosen or left out whole."""
        word = verdicts.word(self.stands.get(clip, ()))
        return word not in self.without if self.verdict is None else word == self.verdict

    @property
    def said(self) -> str:
        """It as the options that ask for it."""
        return options(self.verdict, self.without)

    def described(self, left_out: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What a release or an export says of it, as JSON: what was asked, the SHA-256 over the verdicts that stood, and how many clips are left out.

        Args:
            left_out: the clips that it does not take, by video.
        """
        words = Counter(self._word((video_id, clip_id)) for video_id, clips in left_out.items() for clip_id in clips)
        told = {
            "verdict": self.verdict,
            "without": list(self.without),
            "snapshot": self._snapshot(),
            "left_out": dict(sorted(words.items())),
        }
        return told | {"judged": len(self.stands)}

    def reasons(self, left_out: Mapping[str, Sequence[str]]) -> bytes:
        """The clips that are not taken and why, a JSON object each line, as `left_out.jsonl` has them. Judges are not named."""
        lines = [self._reason((video_id, clip_id)) for video_id, clips in sorted(left_out.items()) for clip_id in clips]
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()

    def _word(self, clip: ClipKey) -> str:
        return verdicts.word(self.stands.get(clip, ())) or NOT_JUDGED

    def _reason(self, clip: ClipKey) -> dict[str, Any]:
        names = ("verdict_id", "verdict", "frame_start", "frame_end", "why")
        said = [{name: getattr(verdict, name) for name in names} for verdict in self.stands.get(clip, ())]
        return {"video_id": clip[0], "clip_id": clip[1], "verdict": self._word(clip), "said": said}

    def _snapshot(self) -> str:
        said = {v.verdict_id: [*clip, v.verdict, *v.frames] for clip, of_clip in self.stands.items() for v in of_clip}
        return sha256_of(said)


def options(verdict: str | None, without: Sequence[str]) -> str:
    """Words that choose clips as options of a command; empty where they choose none."""
    return f"--verdict {verdict}" if verdict else " ".join(f"--without {word}" for word in without)


def choose(run: Run, verdict: str | None = None, without: Sequence[str] = ()) -> Choice | None:
    """The choice that these words make among a run's clips now; None where there are none, so that all clips are taken.

    Raises:
        BadSettings: a word is no verdict, or both ways of choosing are asked for.
        ContractError, StorageUnavailable: the verdicts, or which results they are on, cannot be read.
    """
    if unknown := [word for word in (verdict, *without) if word is not None and word not in VERDICT_WORDS]:
        raise BadSettings(f"verdict {unknown[0]!r}", "is none", f"Choose one of {', '.join(sorted(VERDICT_WORDS))}")
    if verdict is not None and without:
        reason = "says which clips are taken, and --without which of all are not"
        raise BadSettings(f"--verdict {verdict}", reason, f"Name one of them: --verdict {verdict} leaves out all others already")
    if verdict is None and not without:
        return None
    words = tuple(word for word in VERDICT_WORDS if word in without)
    wanted = next((word for word in VERDICT_WORDS if word == verdict), None)
    return Choice(wanted, words, verdicts.standing(run, verdicts.read(run.lake)))
