"""Fixtures shared by the tests of operators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes by one thread: small networks lose time on more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inference(one_thread: None) -> Iterator[None]:
    """The same, and without gradients."""
    import torch

    with torch.inference_mode():
        yield
