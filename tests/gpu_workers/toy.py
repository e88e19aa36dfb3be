"""A runner for tests: tasks that take the time they are told, and misbehave as they are told. Standard library and pyarrow only."""

import ctypes
import os
import signal
import sys
import time

import pyarrow as pa


class Toy:
    """Runs tasks like {"key": "k1", "seconds": 0.05, "decode_s": 0.01, "fault": "exit"}; the table names the key."""

    code = "toy"

    def __init__(self, threads):
        self.threads = threads
        self.leaked = []

    def prepare(self, task):
        _misbehave(task.get("decode_fault"), self)
        time.sleep(task.get("decode_s", 0))
        return task

    def compute(self, task, job):
        _misbehave(task.get("fault"), self)
        end = time.monotonic() + task.get("seconds", 0)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
            job.frame()
        if task.get("fault") == "not a table":
            return {"key": task["key"]}
        return pa.table({"key": [task["key"]], "filler": [b"x" * task.get("bytes", 0)]})

    def self_test(self):
        if os.path.exists(os.environ.get("TOY_SICK", "")):
            raise ArithmeticError("1 + 1 is 3")

    def describe(self, error, task):
        return "OperatorCrash", task["key"], f"{type(error).__name__}: {error}", "Mend the toy"


def _misbehave(fault, toy):
    if fault == "segv":
        ctypes.string_at(0)
    elif fault == "exit":
        os._exit(3)
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
    elif fault == "print":
        print("chatter " * 1000)
        sys.stderr.write("more chatter\n")
    elif fault == "leak":
        toy.leaked.append(bytearray(os.urandom(1 << 20) * 400))
    elif fault == "fork" and os.fork() == 0:
        time.sleep(3600)
