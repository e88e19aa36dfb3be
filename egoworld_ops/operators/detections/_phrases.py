"""Which phrases to look for in a clip, and what the things found by them are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from egoworld_ops.errors import BadSettings
from egoworld_ops.video.sidecar import SidecarObject


@dataclass(frozen=True, slots=True)
class Phrases:
    """What to look for.

    Args:
        hands: the phrase for hands; empty where none are wanted.
        labels: the name of the things that each other phrase finds.
    """

    hands: str
    labels: Mapping[str, str]

    @property
    def all(self) -> list[str]:
        """Each phrase once, that for hands first."""
        return [*([self.hands] if self.hands else []), *self.labels]


def phrases_for(hands: str, objects: Sequence[str], known: Sequence[SidecarObject]) -> Phrases:
    """The phrases of the settings and of the sidecar's objects: each object's `text`, or else its label.

    Things get the label of the object whose phrase finds them. Where several objects have one phrase, it cannot tell them apart, and is the label.

    Args:
        hands: the phrase for hands.
        objects: phrases for every video.
        known: the sidecar's objects.
    """
    labels = {phrase: phrase for phrase in map(_plain, objects)}
    of_sidecar: dict[str, list[str]] = {}
    for item in known:
        of_sidecar.setdefault(_plain(item.text or item.label), []).append(item.label)
    labels |= {phrase: names[0] if len(names) == 1 else phrase for phrase, names in of_sidecar.items()}
    return Phrases(_plain(hands), {phrase: label for phrase, label in labels.items() if phrase not in ("", _plain(hands))})


def check_length(phrase: str, tokens: int, most: int, network: str) -> None:
    """Raise BadSettings where a phrase has more tokens than a network reads: without its end it names another thing."""
    if tokens > most:
        raise BadSettings(f"phrase '{phrase}'", f"it has {tokens} tokens, {network} reads {most}", "Name the thing in a few words")


def _plain(phrase: str) -> str:
    """With single spaces, and none around."""
    return " ".join(phrase.split())
