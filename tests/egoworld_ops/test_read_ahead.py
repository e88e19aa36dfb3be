"""Items come in order, an error in the place of its item, never more ahead than the maximum, and no thread is left."""

import threading
import time
from collections.abc import Iterator

import pytest

from egoworld_ops.read_ahead import ReadAhead


def test_it_keeps_order_and_raises_where_the_item_would_have_been() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("broken")

    ahead = iter(ReadAhead(items(), 2))
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_closed_early_it_stops_its_thread_and_the_source() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    ahead = ReadAhead(items(), 2)
    source = iter(ahead)
    assert [next(source), next(source)] == [0, 1]
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]
    assert len(made) < 10


def test_no_more_waits_than_may_and_an_item_larger_than_that_comes_through() -> None:
    sizes = [40, 40, 40, 500, 10, 10]
    made = []

    def items() -> Iterator[int]:
        for size in sizes:
            made.append(size)
            yield size

    ahead = ReadAhead(items(), 100, lambda size: size)
    ahead.wait_filled()
    time.sleep(0.05)
    assert made == [40, 40, 40], "the third is made, and waits for room"
    assert list(ahead) == sizes


def test_filled_comes_also_where_there_is_less_than_may_wait_or_nothing() -> None:
    for few in ([], [1, 2]):
        ahead = ReadAhead(few, 10)
        ahead.wait_filled()
        assert list(ahead) == few
