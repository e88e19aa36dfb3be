"""Networks of `transformers` made of a configuration and arrays that were read from files; nothing is asked of a hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as reports

from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable, printable

Network = TypeVar("Network", bound=PreTrainedModel)
Config = TypeVar("Config", bound=PreTrainedConfig)

_NOT_OF_THE_NETWORK = ("_implementation", "_implementation_internal", "quantization_config", "auto_map")
"""Ends of keys of a configuration that say how to compute and not what. `attn_implementation` may name a repository on the hub, whose code the
package would download and run."""


def config_of(kind: type[Config], path: Path, what: str, cure: str) -> Config:
    """The configuration in a file: what it says of the network, at all depths; not what it says of the code that is to compute it.

    Args:
        kind: its class.
        path: a JSON file.
        what: whose it is, for the error.
        cure: what to do where it is another one.

    Raises:
        WeightsUnreadable: no configuration can be made of it.
        WeightsMismatch: it is of another network.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        found = values.get("model_type")
        known: Config | None = kind.from_dict(_of_the_network(values)) if found == kind.model_type else None
    except Exception as error:  # the errors of the packages that check it have no common base
        said = printable(" ".join(str(error).split()))
        raise WeightsUnreadable(path, f"no configuration of {what} can be made of it: {said}", cure) from error
    if known is None:
        raise WeightsMismatch(path, f"it describes a {printable(found)}, not a {kind.model_type}", cure)
    return known


def _of_the_network(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _of_the_network(item) for key, item in value.items() if not key.endswith(_NOT_OF_THE_NETWORK)}
    return [_of_the_network(item) for item in value] if isinstance(value, list) else value


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
