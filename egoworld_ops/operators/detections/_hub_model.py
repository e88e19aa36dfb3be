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

_MOST, _MOST_LAYERS = 1 << 24, 1000
"""Of a number of a configuration, and of one of layers. The largest that networks have is the number of words; each layer is built one by one."""
_SPARE = 1 << 26
"""Numbers that a network may have more than twice what its file holds: what is computed, such as codes of positions."""


def config_of(kind: type[Config], path: Path, what: str, cure: str) -> Config:
    """The configuration in a file: what it says of the network, at all depths; not what it says of the code that is to compute it.

    Args:
        kind: its class.
        path: a JSON file.
        what: whose it is, for the error.
        cure: what to do where it is another one.

    Raises:
        WeightsUnreadable: no configuration can be made of it, or it has sizes that no network has.
        WeightsMismatch: it is of another network.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        _check_numbers(values)
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


def _check_numbers(value: Any, name: str = "") -> None:
    """Raise ValueError where a number is greater than any network has: the package would build something for each."""
    for key, item in value.items() if isinstance(value, dict) else [(name, i) for i in value] if isinstance(value, list) else ():
        _check_numbers(item, key)
    if isinstance(value, int) and abs(value) > (most := _MOST_LAYERS if "layers" in name else _MOST):
        raise ValueError(f"it has {name} = {value}, more than {most}")


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
        WeightsUnreadable: the configuration is of no network.
    """
    _check_size(kind, config, arrays, path, cure)
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


def _check_size(kind: type[Network], config: PreTrainedConfig, arrays: Mapping[str, np.ndarray], path: Path, cure: str) -> None:
    """Before memory is taken for a network: whether the file can be of one of that size. Raises as `from_arrays`."""
    try:
        with quiet(), torch.device("meta"):
            network = kind(config)
    except Exception as error:  # the package raises whatever a value of the wrong kind leads to
        said = printable(" ".join(str(error).split()))
        raise WeightsUnreadable(path, f"no network can be made of its configuration: {said}", cure) from error
    wanted = sum(p.numel() for p in network.parameters()) + sum(b.numel() for b in network.buffers())
    held = sum(array.size for array in arrays.values())
    if wanted > 2 * held + _SPARE:
        raise WeightsMismatch(path, f"its configuration describes a network of {wanted} numbers, it holds {held}", cure)


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
