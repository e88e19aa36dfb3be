"""What each extra takes: a fresh virtual environment with the releases of `requirements.lock` that it needs, and nothing else.

    python -m benchmarks.bench_install [EXTRA ...]

Prints, of egoworld alone and of egoworld with each extra: packages, size on disk, seconds of `pip install`, the versions that the extra adds, and
what `pip check` says. Needs an environment in which all of the lock file is installed, since the packages' own requirements tell what an extra needs;
gigabytes are downloaded unless pip has them in its cache. Each environment is removed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
BUILDERS = ("setuptools==84.2.1", "wheel==0.48.0")


def needed(extra: str) -> set[str]:
    """The packages that egoworld with an extra brings, by the installed packages' own requirements; names as the index has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ours = {"": project["dependencies"], **project["optional-dependencies"]}
    seen: set[tuple[str, str]] = set()
    open_ends = [("egoworld", ""), ("egoworld", extra)]
    while open_ends:
        name, wanted = open_ends.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        environment = default_environment() | {"extra": wanted}
        for text in ours[wanted] if name == "egoworld" else distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                open_ends += [(canonicalize_name(requirement.name), part) for part in ("", *sorted(requirement.extras))]
    return {name for name, _ in seen} - {"egoworld", *(line.split("==")[0] for line in BUILDERS)}


def locked() -> dict[str, str]:
    """The lines of the lock file by name."""
    lines = [line.strip() for line in LOCK.read_text("utf-8").splitlines() if "==" in line]
    return {canonicalize_name(line.split("==")[0]): line for line in lines}


def installed(names: Iterable[str], folder: Path) -> tuple[float, float, str]:
    """Seconds of the installation of these lines of the lock file and of egoworld into a fresh environment, its MB, and what `pip check` says."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", *BUILDERS], check=True)
    lines = folder / "wanted.txt"
    lines.write_text("\n".join(names) + "\n", "utf-8")
    began = time.monotonic()
    quietly = ["install", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *quietly, "-r", lines], check=True, env={"SAM2_BUILD_CUDA": "0", "PATH": f"{python.parent}:/usr/bin:/bin"})
    subprocess.run([*pip, *quietly, "-e", ROOT], check=True)
    seconds = time.monotonic() - began
    size = subprocess.run(["du", "-sm", "--apparent-size", folder], check=True, capture_output=True, text=True).stdout.split()[0]
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False).stdout.strip()
    return seconds, float(size), " / ".join(checked.splitlines())


def main(extras: Sequence[str]) -> int:
    lock, alone = locked(), needed("")
    for extra in extras:
        names = needed(extra)
        if lacking := sorted(names - lock.keys()):
            print(f"not in the lock file: {', '.join(lacking)}")
            return 1
        with tempfile.TemporaryDirectory(prefix="egoworld-install-") as folder:
            seconds, size_mb, checked = installed([lock[name] for name in sorted(names)], Path(folder, "venv"))
        added = [lock[name] for name in sorted(names - alone)]
        print(
            f"FIGURE install, {extra or 'egoworld alone'}: {len(names)} packages, {size_mb:.0f} MB, {seconds:.0f} s; pip check: {checked}"
        )
        print(f"  adds {', '.join(added) or 'nothing'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ("", "sam3", "onnx", "foundationpose", "dev")))
