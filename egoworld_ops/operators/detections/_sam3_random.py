"""A small SAM 3 of random numbers, to test the pipeline without weights. What it says means nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Sam3VideoConfig

from egoworld_ops.operators.detections._sam3_model import TOKENS, Limits, apply, phrase
from egoworld_ops.operators.detections._sam3_session import Phrase, Sam3

_SMALL_PX, _PATCH_PX = 84, 14


def small_config(**options: Any) -> Sam3VideoConfig:
    """The configuration of a network of 6 million numbers for pictures of 84 px; the memory of 64 channels is fixed in the package's code.

    Args:
        options: of `Sam3VideoConfig`.
    """
    side = _SMALL_PX // _PATCH_PX
    heads = {"hidden_size": 128, "num_attention_heads": 4}
    layers = heads | {"num_layers": 1, "intermediate_size": 64}
    vit = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": _SMALL_PX}
    vision = {
        "model_type": "sam3_vision_model",
        "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[side * n, side * n] for n in (4, 2, 1)],
        "backbone_config": vit | {"model_type": "sam3_vit_model", "window_size": 6, "global_attn_indexes": [1], "pretrain_image_size": 84},
    }
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": 32,
            "intermediate_size": 64,
            "projection_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "max_position_embeddings": TOKENS,
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": layers | {"num_layers": 2, "num_queries": 6},
        "mask_decoder_config": heads | {"num_upsampling_stages": 3},
    }
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": _SMALL_PX, "patch_size": _PATCH_PX, "mask_input_channels": 4},
        "mask_decoder_config": heads | {"mlp_dim": 64, "num_hidden_layers": 2, "iou_head_hidden_dim": 32},
        "memory_attention_hidden_size": 128,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 64,
        "memory_attention_rope_feat_sizes": [side, side],
        "memory_encoder_hidden_size": 128,
        "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128,
        "memory_fuser_intermediate_dim": 64,
    }
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=4 * side, **options)
    config.image_size = _SMALL_PX
    return config


def random(seed: int, limits: Limits, device: torch.device, dtype: torch.dtype, **options: Any) -> Sam3:
    """A small network of random numbers: it runs like the published one, and sees things that are not there.

    Args:
        seed: of its numbers.
        limits: as of the published network.
        device: where it computes.
        dtype: in which it computes.
        options: of `Sam3VideoConfig`, beside those that let some of what it sees last.
    """
    lasting: dict[str, Any] = {"hotstart_unmatch_thresh": 3, "hotstart_dup_thresh": 3, "hotstart_delay": 6, "trk_assoc_iou_thresh": 0.25}
    config = small_config(**lasting | options)
    apply(config, limits)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Sam3(config)
    enliven(model)
    ready: Sam3 = nn.Module.to(model, device, dtype).eval()
    return ready


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Make a random network's detections and masks as different from each other as those of a trained one: else all it finds is lost at once."""
    for name, values in model.named_parameters():
        if values.ndim > 1 and "mask" in name:
            values.mul_(3)
        if values.ndim > 1 and "dot_product_scoring" in name:
            values.mul_(4)
        if name.endswith("pred_obj_score_head.proj_out.bias"):
            values.fill_(3)


def phrases(texts: Sequence[str]) -> list[Phrase]:
    """Prompts whose tokens are numbers made of the words."""
    words = {text: [zlib.crc32(word.encode()) % 49000 for word in text.split()] for text in texts}
    return [phrase(text, ids + [0] * (TOKENS - len(ids)), [1] * len(ids) + [0] * (TOKENS - len(ids))) for text, ids in words.items()]
