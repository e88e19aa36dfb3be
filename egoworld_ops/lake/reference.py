"""Which run of a lake newer videos are compared with: `drift_reference.json`, which a person writes with `egoworld drift --keep`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from egoworld_ops.files.whole import hold_swept, write_bytes
from egoworld_ops.lake import pointer

FILE_NAME = "drift_reference.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """A run, or of that run only the videos that are in its release."""

    run_id: str
    released: bool = False


def read(root: Path) -> Reference | None:
    """The reference of a lake; None where nobody chose one.

    Raises:
        StorageUnavailable: it cannot be read now.
        SetupError: it is not what this project writes.
    """
    said = pointer.read_choice(root / FILE_NAME, ("released",), "what the reference is", "egoworld drift --keep RUN")
    return None if said is None else Reference(*said)


def write(root: Path, reference: Reference) -> None:
    """Choose a reference.

    Raises:
        StorageUnavailable: the storage refuses.
    """
    hold_swept(root)  # so that nobody takes the file being written here for an orphan of a killed process
    write_bytes(root / FILE_NAME, json.dumps(asdict(reference)).encode())
