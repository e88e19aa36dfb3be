"""Which run of a lake is its latest: `latest.json`, which needs no link. A symbolic link `latest` beside it is for people; no code reads it.

Only a lake written before there was `latest.json` is read by its link.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from egoworld_ops.errors import SetupError, unreadable
from egoworld_ops.files import regular
from egoworld_ops.files.whole import RUN, TEMPORARY, hold_swept, write_bytes

FILE_NAME, LINK = "latest.json", "latest"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `latest.json` says.

    Args:
        run_id: the latest run.
        pinned: a person chose it, so nothing moves it but a person.
    """

    run_id: str
    pinned: bool = False


def read(root: Path) -> Pointer | None:
    """What a lake's pointer says, also where that run is gone; None where the lake has no pointer.

    Raises:
        StorageUnavailable: it cannot be read now.
        SetupError: it is not what this project writes.
    """
    said = read_choice(root / FILE_NAME, ("pinned",), "which run is the latest", "egoworld runs use RUN")
    return _of_link(root / LINK) if said is None else Pointer(*said)


def read_choice(path: Path, flags: Sequence[str], what: str, command: str) -> tuple[str, *tuple[bool, ...]] | None:
    """The run that a JSON file chooses, and its flags; None where there is no such file.

    Args:
        what: the file is to say, for a person.
        command: that writes it.

    Raises:
        StorageUnavailable: it cannot be read now.
        SetupError: it is not what this project writes.
    """
    try:
        said = json.loads(regular.read_bytes(path))
        return str(said["run_id"]), *(bool(said[flag]) for flag in flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and (away := unreadable(error, path)) is not None:
            raise away from error
        raise SetupError(path, f"does not say {what}: {error!r}", f"Choose one: `{command}`") from error


def write(root: Path, pointer: Pointer) -> None:
    """Point at a run.

    Raises:
        StorageUnavailable: the storage refuses.
    """
    hold_swept(root)  # so that nobody takes the files being written here for orphans of a killed process
    write_bytes(root / FILE_NAME, json.dumps(asdict(pointer)).encode())
    with suppress(OSError):  # exFAT and some network file systems have no symbolic links, and nothing needs this one
        _link(root, f"{RUN}{pointer.run_id}")


def _link(root: Path, target: str) -> None:
    temporary = root / f"{TEMPORARY}{LINK}-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    try:
        os.replace(temporary, root / LINK)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _of_link(link: Path) -> Pointer | None:
    """The run that the link of an older lake names; None where there is no link."""
    try:
        name = os.readlink(link)
    except OSError as error:
        if error.errno != errno.EINVAL and (away := unreadable(error, link)) is not None:
            raise away from error
        return None
    return Pointer(Path(name).name.removeprefix(RUN))
