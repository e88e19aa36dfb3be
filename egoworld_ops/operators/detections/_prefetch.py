"""Work ahead on an iterator in a thread, so that decoding and the networks run at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items, in order, at most `depth` of them made ahead of use. Errors come out where the item would have.

    The thread ends with the generator, also when that is closed early; then `items` is not advanced any more.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()
    worker = threading.Thread(target=_produce, args=(items, ready, stop), name="prefetch", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        while worker.is_alive():
            _drain(ready)
            worker.join(0.05)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _produce(items: Iterable[T], ready: queue.Queue[object], stop: threading.Event) -> None:
    try:
        for item in items:
            ready.put(item)
            if stop.is_set():
                return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
        ready.put(_Failure(error))
    else:
        ready.put(_END)


def _drain(ready: queue.Queue[object]) -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return
