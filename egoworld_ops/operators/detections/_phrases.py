"""Which phrases to look for in a clip, and what the things found by them are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from egoworld_ops.errors import BadSettings, BadSidecar
from egoworld_ops.video.sidecar import SidecarObject, sidecar_path

_GOOD = "a few words, other than the phrase for hands"


class UnusablePhrase(ValueError):
    """A phrase that a network cannot read, and why."""

    def __init__(self, phrase: str, reason: str) -> None:
        super().__init__(f"phrase '{phrase}': {reason}")
        self.phrase, self.reason = phrase, reason


@dataclass(frozen=True, slots=True)
class Phrases:
    """What to look for.

    Args:
        hands: the phrase for hands; empty where none are wanted.
        labels: the name of the things that each other phrase finds.
        of_sidecar: those of them that the sidecar names.
        useless: those that name nothing: they are blank, or the phrase for hands.
    """

    hands: str
    labels: Mapping[str, str]
    of_sidecar: frozenset[str] = frozenset()
    useless: tuple[str, ...] = ()

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
    useless = tuple(phrase for phrase in labels if phrase in ("", _plain(hands)))
    wanted = {phrase: label for phrase, label in labels.items() if phrase not in useless}
    return Phrases(_plain(hands), wanted, frozenset(of_sidecar) - {_plain(phrase) for phrase in objects}, useless)


@contextmanager
def blamed(phrases: Phrases, video_path: Path) -> Iterator[None]:
    """Refuse phrases that name nothing, and turn UnusablePhrase into an error of whoever gave it: of one video's sidecar, or of the settings of all.

    Raises:
        BadSidecar: it is of the sidecar of the video at `video_path`, so that other videos go on.
        BadSettings: it is of the settings.
    """
    try:
        for phrase in phrases.useless:
            reason = "is the phrase for hands, so nothing would be found by it" if phrase else "is blank"
            raise UnusablePhrase(phrase, reason)
        yield
    except UnusablePhrase as error:
        if error.phrase in phrases.of_sidecar:
            raise BadSidecar(sidecar_path(video_path), str(error), f"Give the object a `text` of {_GOOD}") from error
        raise BadSettings(f"phrase '{error.phrase}'", error.reason, f"Name the thing in {_GOOD}") from error


def check_length(phrase: str, tokens: int, most: int, network: str) -> None:
    """Raise UnusablePhrase where a phrase has more tokens than a network reads: without its end it names another thing."""
    if tokens > most:
        raise UnusablePhrase(phrase, f"it has {tokens} tokens, {network} reads {most}")


def _plain(phrase: str) -> str:
    """With single spaces, and none around."""
    return " ".join(phrase.split())
