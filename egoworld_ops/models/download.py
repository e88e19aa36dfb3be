"""Getting a file from an address: resumed where it was broken off, never longer or shorter than announced, with what went wrong in words.

A token goes to the address it is meant for and to no other, so not along with a redirect to another host. Without a known SHA-256 only an
encrypted connection is trusted; this host itself excepted.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from egoworld_ops.errors import StorageUnavailable, WeightsMismatch, WeightsMissing

Progress = Callable[[int, int | None], None]
"""Takes the number of bytes that are here, and of all; None where the publisher does not say."""
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60
_MOST_TRIES = 20
_NOT_SATISFIABLE = 416
_PASSING = {408, 425, 429}
_HERE = {"127.0.0.1", "localhost", "::1"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to download.

    Args:
        bytes: its size, where it is known.
        known: whether its content will be checked against a SHA-256 that is known.
        token: of the user, or empty.
        access: what to do where the publisher asks who one is.
        otherwise: what to do where it cannot be had.
    """

    url: str
    bytes: int | None
    known: bool
    token: str
    access: str
    otherwise: str


@dataclass(frozen=True, slots=True)
class Announced:
    """What a hub says of a file: its commit, and the SHA-256 of its content; empty where it does not."""

    commit: str = ""
    sha256: str = ""


class _Broken(Exception):
    """The connection ended before the file did."""


def download(wanted: Wanted, part: Path, progress: Progress) -> Announced:
    """Get a file into `part`, going on with what is there of an earlier attempt if the publisher's file is still the same.

    Raises:
        WeightsMissing: the publisher does not give it: no such file, or not to this user.
        WeightsMismatch: it is of another size than the registry names; or it is a web page.
        StorageUnavailable: the publisher does not answer, or broke off; what came is kept, and the next call goes on with it.
    """
    _check_address(wanted, wanted.url)
    before, reason = -1, ""
    for _ in range(_MOST_TRIES):
        here = _size(part)
        if here == before:
            break
        before = here
        try:
            return _get(wanted, part, progress)
        except (_Broken, HTTPException, OSError, ValueError) as error:  # the last: a redirect to what is no address
            reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
    kept = f"; {_size(part)} bytes are kept, and the next attempt goes on from there" if _size(part) else ""
    raise StorageUnavailable(wanted.url, f"download failed: {reason}{kept}", f"Try again; or {wanted.otherwise}")


def _get(wanted: Wanted, part: Path, progress: Progress) -> Announced:
    """One attempt."""
    note = part.with_name(f"{part.name}.json")
    here = _size(part)
    mark = _note(note, wanted.url) if here else ""
    if here and not mark and not wanted.known:
        here = 0
    headers = {"User-Agent": "egoworld", "Accept-Encoding": "identity"}
    if here:
        headers |= {"Range": f"bytes={here}-", **({"If-Range": mark} if mark else {})}
    request = urllib.request.Request(wanted.url, headers=headers)  # noqa: S310 - addresses come from the registry
    if wanted.token:
        request.add_unredirected_header("Authorization", f"Bearer {wanted.token}")
    steps = _Redirects(wanted)
    try:
        with urllib.request.build_opener(steps).open(request, timeout=_TIMEOUT_S) as answer:
            announced = steps.announced(answer)
            begin, total = _range(answer, here)
            _check_answer(wanted, answer, total)
            note.write_text(json.dumps({"url": wanted.url, "mark": answer.headers.get("ETag") or ""}), "utf-8")
            _copy(answer, part, begin, total, progress)
    except HTTPError as error:
        with error:
            if error.code == _NOT_SATISFIABLE and here:
                part.unlink()
                raise _Broken("the publisher's file is shorter than what was kept of it") from error
            raise _refused(wanted, error) from error
    with suppress(FileNotFoundError):
        note.unlink()
    return announced


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, and remembers what a hub says on the way."""

    max_redirections = 5
    max_repeats = 1

    def __init__(self, wanted: Wanted) -> None:
        self._wanted, self._said = wanted, Message()

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The next request; with the token only where it goes to the same host."""
        _check_address(self._wanted, newurl)
        self._said = headers
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following is not None and self._wanted.token and urlsplit(newurl)[:2] == urlsplit(self._wanted.url)[:2]:
            following.add_unredirected_header("Authorization", f"Bearer {self._wanted.token}")
        return following

    def announced(self, answer: HTTPResponse) -> Announced:
        """What was said on the way or at the end."""
        said = (self._said, answer.headers)
        commit, mark = (next((h[name] for h in said if h[name]), "") for name in ("X-Repo-Commit", "X-Linked-ETag"))
        found = _SHA256.fullmatch(mark.strip('W/"'))
        return Announced(commit, found.group() if found else "")


def _check_address(wanted: Wanted, url: str) -> None:
    where = urlsplit(url)
    if where.scheme == "https" or (where.scheme == "http" and (wanted.known or where.hostname in _HERE)):
        return
    reason = f"leads to {where.scheme}://{where.hostname}, a connection without encryption, and no SHA-256 is known to check the file by"
    raise WeightsMissing(wanted.url, reason, f"Use an address with https; or {wanted.otherwise}")


def _range(answer: HTTPResponse, here: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the size of the whole file."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length and length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != here:
        raise _Broken(f"asked for what is from byte {here} on, the publisher gave {answer.headers.get('Content-Range')}")
    return here, None if found[2] == "*" else int(found[2])


def _check_answer(wanted: Wanted, answer: HTTPResponse, total: int | None) -> None:
    if answer.headers.get_content_type() == "text/html":
        raise WeightsMismatch(
            answer.url, "a web page came in place of the file", f"{wanted.access or 'See what the page says'}; or {wanted.otherwise}"
        )
    if wanted.bytes is not None and total is not None and total != wanted.bytes:
        reason = f"the publisher's file has {total} bytes, the registry names {wanted.bytes}"
        raise WeightsMismatch(wanted.url, reason, f"The publisher has changed it; {wanted.otherwise}")


def _copy(answer: HTTPResponse, part: Path, begin: int, total: int | None, progress: Progress) -> None:
    with part.open("r+b" if begin else "wb") as out:
        out.seek(begin)
        out.truncate()
        here = begin
        progress(here, total)
        while chunk := answer.read(_CHUNK_BYTES):
            out.write(chunk)
            here += len(chunk)
            progress(here, total)
        out.flush()
        os.fsync(out.fileno())
    if total is not None and here != total:
        raise _Broken(f"{here} of {total} bytes came")


def _refused(wanted: Wanted, error: HTTPError) -> Exception:
    said = f"the publisher answers {error.code} {error.reason}"
    if error.code in _PASSING or error.code >= 500:
        return StorageUnavailable(wanted.url, said, f"Try again later; or {wanted.otherwise}")
    if error.code in (401, 403):
        whose = "to your token" if wanted.token else "without a token"
        return WeightsMissing(wanted.url, f"{said}: the file is not given {whose}", f"{wanted.access}; or {wanted.otherwise}".lstrip("; "))
    if error.code in (404, 410):
        return WeightsMissing(
            wanted.url, f"{said}: it is not there (any more)", f"Look for it on the publisher's pages, then {wanted.otherwise}"
        )
    return WeightsMissing(wanted.url, said, f"{wanted.otherwise[:1].upper()}{wanted.otherwise[1:]}")


def _note(note: Path, url: str) -> str:
    """The mark (ETag) of the file of which a part is here; empty where there is none, or it is of another address."""
    try:
        said: Mapping[str, Any] = json.loads(note.read_text("utf-8"))
        return str(said["mark"]) if said["url"] == url else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
