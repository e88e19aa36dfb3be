"""A real Postgres server for tests: the machine's own, else the one in the package `pgserver`; in a folder of its own, on a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OPTIONS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=40",
    "deadlock_timeout=20ms",
)
KEEPER = '"$@" & server=$!; read _; kill -QUIT $server; wait $server'
"""A shell program that ends the server when the pipe from this process closes, also if this process is killed."""


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; None if there is no server."""
    places = [Path(os.path.realpath(found)).parent for name in ("initdb",) if (found := shutil.which(name))]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (spec := find_spec("pgserver")) and spec.origin:
        places.append(Path(spec.origin).parent / "pginstall" / "bin")
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


def _user() -> str | None:
    """The user that runs the server if this process is root's, because root may not; None for other users."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """URL of a running server's database."""
    folder, user = Path(tempfile.mkdtemp(prefix="egoworld-pg-")), _user()
    if user:
        shutil.chown(folder, user)
    try:
        with _running(programs, folder, {"user": user, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}):
            yield f"postgresql://egoworld@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(programs: Path, folder: Path, common: dict[str, Any]) -> Iterator[None]:
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "egoworld", "--auth=trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **common)
    options = [part for option in (*OPTIONS, "listen_addresses=", f"unix_socket_directories={folder}") for part in ("-c", option)]
    command = ["sh", "-c", KEEPER, "sh", programs / "postgres", "-D", data, *options]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, **common) as keeper:
        try:
            _wait_for(folder)
            yield
        finally:
            keeper.communicate(timeout=120)


def _wait_for(folder: Path, at_most_s: float = 120) -> None:
    import psycopg

    until = time.monotonic() + at_most_s
    while True:
        try:
            psycopg.connect(host=str(folder), user="egoworld", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.02)
