"""Whether the tensors of a checkpoint are those of the network that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from egoworld_ops.errors import WeightsMismatch


def check(path: Path, found: Mapping[str, np.ndarray], want: Mapping[str, tuple[int, ...]], what: str, command: str) -> None:
    """Raise WeightsMismatch where the names or shapes of arrays of a file differ from those of `what`, which `command` gets."""
    wrong = [*_differences("lacks", want.keys() - found.keys()), *_differences("has besides", found.keys() - want.keys())]
    shaped = sorted(name for name in want.keys() & found.keys() if found[name].shape != want[name])
    if shaped:
        first = shaped[0]
        wrong.append(f"{len(shaped)} of its arrays have another shape, such as {first}: {found[first].shape}, want {want[first]}")
    if wrong:
        raise WeightsMismatch(path, f"this is not the file of {what}, or of another version: it {'; '.join(wrong)}", f"Run: {command}")


def _differences(verb: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    return [f"{verb} {len(listed)} arrays, such as {listed[0]}"] if listed else []
