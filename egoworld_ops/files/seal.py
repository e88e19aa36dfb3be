"""A Parquet file that can tell whether any byte of it has changed since it was written, before anything of it is parsed.

Its footer holds `egoworld.sha256`: the SHA-256, hex, of the file's bytes with the 64 characters of that value taken for zeros. Page checksums
leave out headers and the footer; and a footer that is damaged in some ways ends the process that lets Arrow read it.
"""

from __future__ import annotations

import hashlib

KEY = "egoworld.sha256"
OPEN = "0" * 64
"""The value in a file that is not sealed yet."""
_PAIR = b"\x18" + bytes([len(KEY)]) + KEY.encode() + b"\x18" + bytes([len(OPEN)])
"""How a pair of a key and a value stands in a footer up to the value; see `footer.py`."""


def sealed(content: bytes) -> bytes:
    """A file's bytes, in the footer of which `KEY` has the value `OPEN`, with the seal in its place."""
    at = _position(content)
    if at is None or content[at : at + len(OPEN)] != OPEN.encode():
        raise ValueError(f"seal: no footer with {KEY} = {OPEN[:4]}...")
    return content[:at] + _digest(content, at) + content[at + len(OPEN) :]


def is_sealed(content: bytes) -> bool:
    """Whether a file has a seal, whole or broken."""
    return _position(content) is not None


def is_whole(content: bytes) -> bool | None:
    """Whether a file's bytes are those that were sealed; None where there is no seal, in older and in foreign files."""
    at = _position(content)
    return None if at is None else content[at : at + len(OPEN)] == _digest(content, at)


def _position(content: bytes) -> int | None:
    """Where the value of the seal begins."""
    found = content.rfind(_PAIR)
    return None if found < 0 else found + len(_PAIR)


def _digest(content: bytes, at: int) -> bytes:
    view = memoryview(content)
    sha256 = hashlib.sha256(view[:at])
    sha256.update(OPEN.encode())
    sha256.update(view[at + len(OPEN) :])
    return sha256.hexdigest().encode()
