"""The exception tree. Every error names its culprit, the reason and the cure, and knows whether a retry can help.

EgoworldError
├── TransientError            retryable: the same call may succeed later
│   ├── StorageUnavailable    a disk or store did not answer, or is full
│   ├── OutOfMemory           host or device memory ran out
│   ├── PoolLost              the worker pool went away
│   └── InputChanged          an input table changed while a clip was worked on
├── InputError                the input is bad; never retried, one dead letter
│   ├── NotAVideo             not a regular file holding a supported video container
│   ├── NoVideoStream         a media file without a video stream
│   ├── EmptyVideo            a video stream without one decodable frame
│   ├── CorruptVideo          decoding stopped before the range that was asked for
│   ├── UnsupportedPicture    the picture is encrypted, or stored in a way that no pinhole camera makes
│   ├── UnknownVideo          no video of this name is registered, or the run holds no manifest of it
│   ├── UnstableFile          the file changed while it was read
│   ├── RawFileAway           the raw file of a known video is not there, or cannot be read now
│   ├── BadSidecar            the sidecar file beside the video does not fit its format
│   ├── SidecarChanged        somebody wrote the sidecar between reading and writing it
│   ├── BadCalibration        a calibration file is of no known format, makes no sense, or is not of the video's camera
│   ├── UnknownIntrinsics     metric results are asked for, and no intrinsics are known
│   └── UnsupportedLens       the backend takes pinhole cameras only, and the video was seen through another lens
├── SetupError                the installation or the settings are wrong; the step fails at once
│   ├── WeightsMissing        a weight file is not there
│   ├── WeightsMismatch       a weight file is not the one in the registry
│   ├── WeightsUnreadable     a weight file is damaged, or holds what is not read
│   ├── UnknownBackend        no such stage or backend
│   ├── BrokenPlugin          what an installed package brings cannot be used
│   ├── UnknownRobot          no such robot hand
│   ├── BadSettings           a setting is unknown or out of range
│   ├── NoDevice              no device of the pool can run the operator
│   ├── WorkersBroken         workers die before they are ready
│   ├── StaleCode             the code on disk is not the code the run was started with
│   ├── PoolRefused           the pool does not talk to this client
│   ├── LedgerTooNew          a newer version of egoworld made the ledger
│   └── LedgerDamaged         what lies in the ledger's place is not a ledger, or is damaged
├── PoisonClip                a clip at which workers died or hung, again and again, while nothing else ran there
├── IllegalMove               a clip was to move between states as the ledger's table does not allow: a bug
├── ContractError             a table breaks the data contract: a bug in an operator, or a foreign file
├── BadRequest                the review page has no page of this address
├── NotThere                  what an address of the review page names is not in the lake
└── OperatorCrash             an operator raised something that is not in this tree: a bug
"""

from __future__ import annotations

import errno
from typing import ClassVar


class EgoworldError(Exception):
    """Base of all errors that egoworld raises on purpose.

    Args:
        culprit: what is at fault: a file, a clip, a setting, a weight.
        reason: what is wrong with it.
        cure: what a person can do about it.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, culprit: object, reason: str, cure: str) -> None:
        super().__init__(culprit, reason, cure)
        self.culprit = printable(culprit)
        self.reason = printable(reason)
        self.cure = printable(cure)

    def __str__(self) -> str:
        return f"{self.culprit}: {self.reason}. {self.cure}"


class TransientError(EgoworldError):
    """The same call may succeed later."""

    retryable = True


class StorageUnavailable(TransientError):
    """A disk or store did not answer, or is full."""


class OutOfMemory(TransientError):
    """Host or device memory ran out."""


class PoolLost(TransientError):
    """The worker pool went away."""


class InputChanged(TransientError):
    """An input table changed while a clip was worked on."""


class InputError(EgoworldError):
    """The input is bad: never retried. `passing` where not its content is at fault but its state, which a person may mend."""

    passing: ClassVar[bool] = False


class NotAVideo(InputError):
    """Not a regular file holding a supported video container."""


class NoVideoStream(InputError):
    """A media file without a video stream."""


class EmptyVideo(InputError):
    """A video stream without one decodable frame."""


class CorruptVideo(InputError):
    """Decoding stopped before the range that was asked for."""


class UnsupportedPicture(InputError):
    """The picture is encrypted, or stored in a way that no pinhole camera makes: stereo, spherical, colours that cannot be shown."""


class UnknownVideo(InputError):
    """No video of this name is registered, or the run holds no manifest of it."""

    passing = True


class UnstableFile(InputError):
    """The file changed while it was read."""

    passing = True


class RawFileAway(InputError):
    """The raw file of a known video is not there, or cannot be read now."""

    passing = True


class BadSidecar(InputError):
    """The sidecar file beside the video does not fit its format."""

    passing = True


class SidecarChanged(InputError):
    """Somebody wrote the sidecar between reading and writing it."""

    passing = True


class BadCalibration(InputError):
    """A calibration file is of no known format, makes no sense, or is not of the video's camera."""


class UnknownIntrinsics(InputError):
    """Metric results are asked for, and no intrinsics are known."""

    passing = True


class UnsupportedLens(InputError):
    """The backend takes pinhole cameras only, and the video was seen through another lens."""

    passing = True


class SetupError(EgoworldError):
    """The installation or the settings are wrong: the step fails at once."""


class WeightsMissing(SetupError):
    """A weight file is not there."""


class WeightsMismatch(SetupError):
    """A weight file is not the one in the registry."""


class WeightsUnreadable(SetupError):
    """A weight file is damaged, or holds what is not read."""


class UnknownBackend(SetupError):
    """No such stage or backend."""


class BrokenPlugin(SetupError):
    """What an installed package brings cannot be used."""


class UnknownRobot(SetupError):
    """No such robot hand."""


class BadSettings(SetupError):
    """A setting is unknown or out of range."""


class NoDevice(SetupError):
    """No device of the pool can run the operator."""


class WorkersBroken(SetupError):
    """Workers die before they are ready."""


class StaleCode(SetupError):
    """The code on disk is not the code the run was started with."""


class PoolRefused(SetupError):
    """The pool does not talk to this client."""


class LedgerTooNew(SetupError):
    """A newer version of egoworld made the ledger."""


class LedgerDamaged(SetupError):
    """What lies in the ledger's place is not a ledger, or is damaged."""


class PoisonClip(EgoworldError):
    """A clip at which workers died or hung, again and again, while nothing else ran there."""


class IllegalMove(EgoworldError):
    """A clip was to move between states as the ledger's table does not allow: a bug."""


class ContractError(EgoworldError):
    """A table breaks the data contract: a bug in an operator, or a foreign file."""


class OperatorCrash(EgoworldError):
    """An operator raised something that is not in this tree: a bug."""


_FULL = ("ENOSPC", "EDQUOT", "EROFS")
_EXHAUSTED = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ENOLCK")
_DISK = ("EIO", "ENXIO", "ENODEV", "ENOMEDIUM", "EUCLEAN", "EBUSY", "EAGAIN", "EINTR")
_NETWORK = (
    *("ESTALE", "ETIMEDOUT", "ENOTCONN", "EREMOTEIO", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ENOLINK"),
    *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ESHUTDOWN", "EPIPE", "EPROTO", "ECOMM", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED"),
)
EXHAUSTED_ERRNOS = frozenset(getattr(errno, name) for name in _EXHAUSTED)
"""Errors that say that this host, not the storage, has run out of a resource."""
STORAGE_ERRNOS = EXHAUSTED_ERRNOS | {getattr(errno, name) for name in (*_FULL, *_DISK, *_NETWORK)}
"""Errors of disks, network file systems and FUSE for a file that may be whole and cannot be read now. The one list of them."""
_NOT_A_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""No file is there, or something that is no file."""


def recorded(class_name: str, culprit: str, reason: str, cure: str) -> EgoworldError:
    """The error that was written down or sent as these words; a class that is not of this tree is taken for the base."""
    kind = globals().get(class_name)
    if not isinstance(kind, type) or not issubclass(kind, EgoworldError):
        kind = EgoworldError
    return kind(culprit, reason, cure)


def classify(error: Exception, culprit: object) -> EgoworldError:
    """The error of this tree that stands for `error`, which a clip or a file called `culprit` ended in."""
    if isinstance(error, EgoworldError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory(culprit, f"out of memory: {error}", "Lower scenes.max_clip_s or the number of workers, then run again")
    if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
        return StorageUnavailable(culprit, str(error), "Free or restore the storage, then run again")
    return OperatorCrash(culprit, f"{type(error).__name__}: {error}", "This is a bug: report it with the traceback in the failures table")


def unreadable(error: OSError, path: object) -> StorageUnavailable | None:
    """The error of a file that is there and cannot be read now, for whatever reason; None where `error` says that there is no such file.

    Such a file is neither absent nor damaged: nothing may be decided from it, and nothing that is there be touched.
    """
    if error.errno in _NOT_A_FILE:
        return None
    return StorageUnavailable(path, f"cannot be read: {error.strerror or error}", "Restore the storage or its permissions, then run again")


def printable(value: object, limit: int = 2000) -> str:
    """One line of text safe for logs and tables: control characters escaped, surrogates replaced, length bounded."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    line = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
