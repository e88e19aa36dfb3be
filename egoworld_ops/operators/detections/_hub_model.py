"""Networks of `transformers` made of arrays that were read from a file; nothing is asked of a hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as reports

from egoworld_ops.errors import WeightsMismatch

Network = TypeVar("Network", bound=PreTrainedModel)


def from_arrays(
    kind: type[Network],
    config: PreTrainedConfig,
    arrays: Mapping[str, np.ndarray],
    path: Path,
    cure: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """The network of a configuration with the arrays of a file, by their names; each must be there, and no other.

    Args:
        kind: the class of the network.
        config: its configuration.
        arrays: the file's.
        path: of the file, for the error.
        cure: what to do where it is another network's.
        device: where it computes.
        dtype: of the network's numbers.

    Raises:
        WeightsMismatch: an array is missing, too many or of another shape.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with quiet():
        loaded: Any = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    network, report = loaded
    wrong = [
        f"{verb} {len(names)} arrays, such as {sorted(map(str, names))[0]}"
        for verb, names in (
            ("lacks", report["missing_keys"]),
            ("has besides", report["unexpected_keys"]),
            ("has in another shape", report["mismatched_keys"]),
        )
        if names
    ]
    if wrong:
        raise WeightsMismatch(path, f"this is not the network that its configuration describes: it {'; '.join(wrong)}", cure)
    ready: Network = network.to(device).eval()
    return ready


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context the package prints nothing: what is wrong with a file is said by the error."""
    before = reports.get_verbosity()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(before)
        reports.enable_progress_bar()
