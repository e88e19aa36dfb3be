"""Starts Dagster runs fast: a process that has imported everything and forks one child a run, each in a process group of its own.

Lines of JSON on stdin, {"home", "lake", "raw", "log", "backwards"}; it answers with {"pid"} at once and {"pid", "status"} when that child has ended.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    _import_all()
    print(json.dumps({"ready": True}), flush=True)
    alive: set[int] = set()
    while True:
        readable, _, _ = select.select([0], [], [], 0.01)
        if readable:
            line = sys.stdin.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                _child(json.loads(line))
            alive.add(pid)
            print(json.dumps({"pid": pid}), flush=True)
        for pid in list(alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                alive.remove(pid)
                print(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}), flush=True)


def _import_all() -> None:
    """What a run would import; nothing is opened or started before the fork."""
    import importlib

    names = "sqlalchemy duckdb av cv2 scipy.optimize scenedetect torch pinocchio scipy.linalg ai_edge_litert.interpreter PIL.Image"
    for name in [*names.split(), "egoworld_assets.definitions", "egoworld_assets.cli.processing", "egoworld_ops.ledger.store"]:
        importlib.import_module(name)


def _child(asked: dict[str, Any]) -> None:
    """Register the raw folder and run the whole chain over it, as `egoworld register` and `egoworld process` do."""
    os.setsid()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(
        DAGSTER_HOME=asked["home"],
        DAGSTER_DISABLE_TELEMETRY="1",
        EGOWORLD_LAKE=asked["lake"],
        EGOWORLD_RAW=asked["raw"],
        EGOWORLD_POOL__KIND="inline",
        EGOWORLD_POOL__THREADS="1",
    )
    code = 3
    try:
        from egoworld_assets.cli import processing
        from egoworld_ops.lake.lake import Lake
        from egoworld_ops.raw import register
        from egoworld_ops.raw.intake import registered

        settings = processing.settings("laptop")
        register.register(settings.lake, [Path(asked["raw"])])
        video_ids = sorted(registered(Lake(settings.lake)), reverse=asked["backwards"])
        processing.add_partitions(settings, video_ids)
        code = 1 if processing.process(settings, video_ids, lambda line: print(line, flush=True)) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
