"""A runner for tests: each task says how long it takes and how it misbehaves. Standard library and pyarrow only."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa


class Toy:
    """Runs tasks like {"key": "k1", "seconds": 0.05, "decode_s": 0.01, "fault": "exit"}.

    The table names the key and, in column `about`, what happened: process, its parent, children, how often a Toy was built, and when what began
    and ended on the monotonic clock. Where a task has a `log`, each computation adds its key to that file when it begins; where it has an
    `until`, it goes on until there is such a file.
    """

    code = "toy"
    built = 0

    def __init__(self, threads):
        self.threads = threads
        self.leaked = []
        self.children = []
        Toy.built += 1

    def prepare(self, task):
        began = time.monotonic()
        _misbehave(task.get("decode_fault"), self, task)
        time.sleep(task.get("decode_s", 0))
        return task | {"decoding": [began, time.monotonic()]}

    def compute(self, task, job):
        began = time.monotonic()
        if task.get("log"):
            with open(task["log"], "a") as log:
                log.write(task["key"] + "\n")
        _misbehave(task.get("fault"), self, task)
        if task.get("leak_mb"):
            self.leaked.append(os.urandom(1 << 20) * task["leak_mb"])
        end = began + task.get("seconds", 0)
        if task.get("fault") == "deaf":
            time.sleep(task["seconds"])
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
            job.frame()
        while task.get("until") and not os.path.exists(task["until"]):
            time.sleep(0.02)
            job.frame()
        if task.get("fault") == "not a table":
            return {"key": task["key"]}
        if task.get("fault") == "2 GB":
            return pa.table({"filler": pa.Array.from_buffers(pa.int8(), 1 << 31, [None, pa.allocate_buffer(1 << 31)])})
        resident_mb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        about = {"pid": os.getpid(), "parent": os.getppid(), "children": self.children, "built": Toy.built, "resident_mb": resident_mb}
        about |= {"decoding": task["decoding"], "computing": [began, time.monotonic()]}
        return pa.table({"key": [task["key"]], "filler": [b"x" * task.get("bytes", 0)], "about": [json.dumps(about)]})

    def self_test(self):
        if os.path.exists(os.environ.get("TOY_SICK", "")):
            raise ArithmeticError("1 + 1 is 3")

    def describe(self, error, task):
        return "OperatorCrash", task["key"], f"{type(error).__name__}: {error}", "Mend the toy"


def _misbehave(fault, toy, task):
    if fault and "diary" in task:
        with open(task["diary"], "a") as diary:
            diary.write(f"{task['key']} {os.getpid()} {time.monotonic()}\n")
    if fault == "segv":
        print("about to read address 0", flush=True)
        ctypes.string_at(0)
    elif fault == "exit":
        os._exit(3)
    elif fault == "sys.exit":
        sys.exit("enough")
    elif fault == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "hang":
        time.sleep(3600)
    elif fault == "spin":
        while True:
            pass
    elif fault == "hold the gil":
        ctypes.PyDLL(None).sleep(3600)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "raise":
        raise ValueError("bad clip")
    elif fault == "raise at length":
        raise ValueError("\U0001f4a5\udc80" * 100_000)
    elif fault == "print":
        for _ in range(1000):
            print("chatter " * 100)
            sys.stderr.write("more chatter\n")
    elif fault == "leak":
        toy.leaked.append(bytearray(os.urandom(1 << 20) * 400))
    elif fault == "fork":
        if child := os.fork():
            toy.children.append(child)
        else:
            time.sleep(3600)
    elif fault == "fork and leave":
        if child := os.fork():
            toy.children.append(child)
        else:
            os.setsid()
            time.sleep(3600)
