"""`python -m gpu_workers serve | status | scale`: run the broker, look at it, change its size."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from egoworld_ops.errors import EgoworldError
from egoworld_ops.logs import JsonLines
from egoworld_ops.settings import PoolSettings, load_settings
from gpu_workers.place import own_folder, socket_path

_LOG_BYTES = 10_000_000
_FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the broker's socket is. Default: pool.folder of the settings."
)


@click.group()
def pool() -> None:
    """The worker pool of this host."""


@pool.command()
@_FOLDER
@click.option(
    "--workers", type=click.IntRange(1), help="CPU workers on a host without GPUs, GPUs in use on one with. Default: what the host has."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=9464,
    show_default=True,
    help="Port of the metrics, on loopback; 0 takes a free one.",
)
@click.option("--idle-exit-s", type=click.FloatRange(0, min_open=True), help="End when there was no client for so long. Default: never.")
@click.option(
    "--hang-base-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="A clip counts as hung when it makes no frame for so long beyond its estimate.",
)
@click.option(
    "--stop-within-s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="How long running clips may take to finish when the broker is stopped.",
)
@click.option(
    "--worker-memory-mb",
    type=click.IntRange(1),
    help="Host memory of a worker: above three quarters it is replaced between clips, above all of it killed. Default: a fair share.",
)
@click.option("--detach", is_flag=True, help="Run in the background, and return once it serves.")
def serve(
    folder: Path | None,
    workers: int | None,
    metrics_port: int,
    idle_exit_s: float | None,
    hang_base_s: float,
    stop_within_s: float,
    worker_memory_mb: int | None,
    detach: bool,
) -> None:
    """Run the broker until SIGTERM. Then running clips are finished and queued ones go back to their clients. A second SIGTERM ends it at once."""
    from gpu_workers import server
    from gpu_workers.broker.model import Limits

    where = own_folder(_settings(folder).folder)
    ready = _detach(where) if detach else None
    handler = logging.handlers.RotatingFileHandler(
        where / "broker.log", maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8", errors="backslashreplace"
    )
    handlers: list[logging.Handler] = [handler] if detach else [handler, logging.StreamHandler()]
    if load_settings().logs.format == "json":
        for each in handlers:
            each.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers)
    config = server.Config(where, workers, idle_exit_s, stop_within_s, metrics_port, Limits(hang_base_s=hang_base_s), worker_memory_mb)

    def serving() -> None:
        if ready is None:
            click.echo(f"ready {socket_path(where)}")
        else:
            with suppress(BrokenPipeError):  # who started it, perhaps interrupted meanwhile; others may have come
                os.write(ready, b"ready")
            os.close(ready)

    try:
        server.serve(config, serving)
    except EgoworldError as error:
        if ready is not None:
            with suppress(BrokenPipeError):
                os.write(ready, str(error).encode())
        raise


def _detach(where: Path) -> int:
    """Fork into a new session without a terminal; the calling process waits until the other has started or failed."""
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode()
        if said == "ready":
            os._exit(0)
        os.write(2, f"gpu_workers: {said or f'the broker did not start: see {where}/broker.log'}\n".encode())
        os._exit(1)
    os.setsid()
    os.close(read)
    nothing = os.open(os.devnull, os.O_RDWR)
    output = os.open(where / "broker.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for ours, theirs in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(ours, theirs)
    return write


@pool.command()
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def status(folder: Path | None, as_json: bool) -> None:
    """What the broker, its workers and its clients are doing."""
    from gpu_workers import client, snapshot

    said = client.status(_settings(folder))
    click.echo(json.dumps(said) if as_json else snapshot.table(said))


@pool.command()
@_FOLDER
@click.argument("workers", type=click.IntRange(1))
def scale(folder: Path | None, workers: int) -> None:
    """Set the number of workers: new ones start when there is work; surplus ones finish what they hold and end."""
    from gpu_workers import client, snapshot

    click.echo(snapshot.table(client.scale(_settings(folder), workers)))


def _settings(folder: Path | None) -> PoolSettings:
    settings = load_settings().pool
    return settings.model_copy(update={"folder": folder.absolute()}) if folder else settings


def main() -> None:
    """Entry point: an error of ours is one line for a person, not a traceback."""
    try:
        pool(standalone_mode=True)
    except EgoworldError as error:
        click.echo(f"gpu_workers: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
