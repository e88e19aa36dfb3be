"""Starts a worker in whatever interpreter runs this file: `python boot.py FD RUNNER BROKER_PID`.

It loads the package it lies in by its path alone, so that nothing else of the broker's environment comes along. Standard library only.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Load `gpu_workers`, and in it the worker, from this folder."""
    package = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != package]
    spec = importlib.util.spec_from_file_location(package.name, package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[package.name] = module
    spec.loader.exec_module(module)
    from gpu_workers.worker import serve

    serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))


if __name__ == "__main__":
    main()
