"""Builds a SAM 2.1 streaming predictor from the configurations inside the `sam2` package. How it tracks is in `_sam2_stream`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from egoworld_ops.errors import WeightsMismatch
from egoworld_ops.operators.masks._sam2_stream import StreamingPredictor

CONFIGS = {
    "tiny": "sam2.1_hiera_t.yaml",
    "small": "sam2.1_hiera_s.yaml",
    "base_plus": "sam2.1_hiera_b+.yaml",
    "large": "sam2.1_hiera_l.yaml",
}

# What `sam2.build_sam.build_sam2_video_predictor` sets with `apply_postprocessing=True`, less its filling of small holes: that needs a CUDA
# extension that is not built here, and the package skips it, with a warning on every frame, where the extension is missing.
_POSTPROCESSING = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
    "fill_hole_area": 0,
}


def build(
    model: str, image_size: int, max_prompt_frames: int, non_overlapping: bool, device: torch.device, weights: Path | int
) -> StreamingPredictor:
    """A predictor in evaluation mode on `device`.

    Args:
        model: a key of `CONFIGS`.
        image_size: side of the square the frames are resized to, px.
        max_prompt_frames: how many of a track's newest prompted frames it attends to.
        non_overlapping: whether a pixel belongs to one track only.
        device: where it runs.
        weights: the checkpoint, or a seed for random weights.

    Raises:
        WeightsMismatch: the checkpoint does not fit the model.
    """
    config = _config(model, image_size, max_prompt_frames, non_overlapping)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(weights if isinstance(weights, int) else 0)
        predictor: StreamingPredictor = hydra.utils.instantiate(config, _execution_whitelist_=["sam2.*", config._target_])
    if isinstance(weights, Path):
        _load(predictor, weights, model)
    predictor.to(device).eval()
    return predictor


def _config(model: str, image_size: int, max_prompt_frames: int, non_overlapping: bool) -> DictConfig:
    """The package's own configuration, read without Hydra's global search path, which may be another program's."""
    path = files("sam2") / "configs" / "sam2.1" / CONFIGS[model]
    ours = {
        "_target_": f"{StreamingPredictor.__module__}.{StreamingPredictor.__name__}",
        "image_size": image_size,
        "max_cond_frames_in_attn": max_prompt_frames,
        "non_overlap_masks": non_overlapping,
    }
    config = OmegaConf.create(path.read_text("utf-8")).model
    assert isinstance(config, DictConfig)
    config.merge_with(_POSTPROCESSING, ours)
    OmegaConf.resolve(config)
    return config


def _load(predictor: StreamingPredictor, checkpoint: Path, model: str) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    try:
        predictor.load_state_dict(state)
    except RuntimeError as error:
        reason = f"the checkpoint does not fit SAM 2.1 {model}: {error}"
        raise WeightsMismatch(checkpoint, reason, "Fetch the weights again, or name the model they belong to") from error
