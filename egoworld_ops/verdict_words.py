"""What people say of a clip."""

from typing import Literal

VerdictWord = Literal["good", "bad", "unsure"]
VERDICT_WORDS: tuple[VerdictWord, ...] = ("bad", "unsure", "good")
"""The worst first: of several verdicts that stand, the worst is the clip's."""
