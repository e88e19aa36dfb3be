"""The rendered video of a clip as a stream that an `<img>` shows: one JPEG after the other (MJPEG), each at its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from egoworld_assets.chain.watching import check_raw_file
from egoworld_assets.review.asked import Asked
from egoworld_assets.review.shown import Shown
from egoworld_ops.report import rendering
from egoworld_ops.report.layers import ClipLayers, read_layers
from egoworld_ops.types import Clip

MOST = 3
"""Streams at once: each decodes and draws."""
BOUNDARY = "egoworld-frame"
_QUALITY = 80
_SIZES_PX = (64, 1920)
_free = threading.BoundedSemaphore(MOST)


def stream(request: Request) -> Response:
    """The owned frames of a clip with their layers drawn, once, at the video's own pace.

    Raises:
        HTTPException: as many streams as may be are under way.
    """
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    size_px = Asked(request.url.path, request.query_params).number("size", 960, *_SIZES_PX)
    check_raw_file(run, clip, shown.raw_files)
    layers = read_layers(run, clip.video_id, clip.clip_id)
    if not _free.acquire(blocking=False):
        raise HTTPException(503, f"{MOST} streams are under way, and no more may be at once: close one, then load this again")
    _free.release()
    return StreamingResponse(_parts(clip, layers, size_px), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


def _parts(clip: Clip, layers: ClipLayers, size_px: int) -> Iterator[bytes]:
    """The parts of the answer. Whoever goes away ends it: the generator is closed with its answer."""
    with _free:  # not before: an answer that nobody reads is never begun
        begins_s = time.monotonic()
        first_s = None
        for time_s, rgb in rendering.pictures([clip], lambda _: layers, rendering.Rendering(size_px=size_px)):
            first_s = time_s if first_s is None else first_s
            time.sleep(max(begins_s + time_s - first_s - time.monotonic(), 0))
            jpeg = rendering.jpeg(rgb, _QUALITY)
            yield f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg + b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()
