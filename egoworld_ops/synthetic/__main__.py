"""Command: render synthetic scenes with their ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from egoworld_ops.synthetic.config import WIDE, CameraPath, SceneConfig
from egoworld_ops.synthetic.write import Progress, render_scene


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    default = SceneConfig()
    parser = argparse.ArgumentParser(prog="python -m egoworld_ops.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--name", default="synthetic", help="name of the video; with --count a number is added")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the first scene")
    parser.add_argument("--frames-per-shot", type=int, default=default.frames_per_shot, help="frames between two cuts")
    parser.add_argument("--size", type=_size, default=(default.width, default.height), metavar="WxH", help="picture size")
    parser.add_argument("--camera-path", choices=get_args(CameraPath), default=default.camera_path, help="how the head moves")
    parser.add_argument("--plain", action="store_true", help="table and floor without texture")
    parser.add_argument("--clutter", type=int, default=default.clutter, help="things on the table that nobody touches, 0 to 6")
    parser.add_argument("--count", type=int, default=1, help="scenes to render, with seeds counting up")
    parser.add_argument("--wide", action="store_true", help="render through a wide lens, of 150 degrees, instead of a pinhole")
    return parser


def _reporter(label: str) -> Progress:
    def report(done: int, total: int) -> None:
        sys.stderr.write(f"\r{label}: frame {done} of {total}" + ("\n" if done == total else ""))
        sys.stderr.flush()

    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Render, print each video's path; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for number in range(options.count):
        name = options.name if options.count == 1 else f"{options.name}-{number:03d}"
        try:
            config = SceneConfig(
                seed=options.seed + number,
                width=options.size[0],
                height=options.size[1],
                frames_per_shot=options.frames_per_shot,
                **(WIDE if options.wide else {}),
                camera_path=options.camera_path,
                plain=options.plain,
                clutter=options.clutter,
            )
            sys.stdout.write(f"{render_scene(config, options.out, name, _reporter(name))}\n")
        except ValueError as error:
            parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
