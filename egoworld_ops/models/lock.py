"""The lock file of a weights folder: the SHA-256 of each file as it first came, and of what was made of it.

It says what was trusted when: a file whose publisher names no SHA-256 must have this one ever after. `egoworld models list` shows it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from egoworld_ops.errors import WeightsUnreadable, unreadable
from egoworld_ops.files.whole import write_bytes

NAME = "weights.lock.json"


@dataclass(frozen=True, slots=True)
class Pin:
    """What is locked of one weight file.

    Args:
        sha256, bytes: of the file as it came.
        source: where it came from.
        commit: of the hub's repository, where it came from there; else empty.
        converted_sha256: of the safetensors made of it; empty where none was made.
    """

    sha256: str
    bytes: int
    source: str
    commit: str = ""
    converted_sha256: str = ""


def read(folder: Path) -> dict[str, Pin]:
    """All pins of a weights folder; none where it has no lock file.

    Raises:
        WeightsUnreadable: the lock file is damaged.
        StorageUnavailable: it is there and cannot be read now.
    """
    path = folder / NAME
    try:
        return {name: Pin(**said) for name, said in json.loads(path.read_text("utf-8")).items()}
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsUnreadable(path, f"is damaged: {error}", "Restore it, or remove it and fetch the weights again") from error


def write(folder: Path, name: str, pin: Pin | None) -> None:
    """Lock what is known of one file, or forget it; the caller holds the folder."""
    pins = {n: p for n, p in {**read(folder), name: pin}.items() if p is not None}
    write_bytes(folder / NAME, (json.dumps({n: asdict(p) for n, p in sorted(pins.items())}, indent=1) + "\n").encode())
