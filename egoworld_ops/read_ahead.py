"""Advances an iterator ahead of its use in a thread, so that decoding and what uses the frames run at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class ReadAhead(Generic[T]):
    """The items, in order, made ahead of use by a thread of its own. Errors come out where the item would have.

    Args:
        items: advanced by that thread alone, and no more once this is closed.
        most: so much of it may wait to be used; an item that alone is larger still comes through.
        size: what one item counts.
    """

    def __init__(self, items: Iterable[T], most: int, size: Callable[[T], int] = lambda item: 1) -> None:
        self._items, self._most, self._size = items, most, size
        self._ready: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._filled = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="read-ahead", daemon=True)
        self._thread.start()

    def wait_filled(self) -> None:
        """Wait until the buffer is full, or all items are there."""
        self._filled.wait()

    def close(self) -> None:
        """Stop making items, and wait for the thread to end."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """The items; closes when it ends, also early."""
        try:
            while (item := self._ready.get()) is not _END:
                if isinstance(item, _Failure):
                    raise item.error
                with self._room:
                    self._waiting -= self._size(item)  # type: ignore[arg-type]
                    self._room.notify_all()
                yield item  # type: ignore[misc]
        finally:
            self.close()

    def _produce(self) -> None:
        try:
            for item in self._items:
                size = self._size(item)
                with self._room:
                    while self._waiting and self._waiting + size > self._most and not self._closed:
                        self._filled.set()
                        self._room.wait()
                    if self._closed:
                        return
                    self._waiting += size
                self._ready.put(item)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            self._ready.put(_Failure(error))
        else:
            self._ready.put(_END)
        finally:
            self._filled.set()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
