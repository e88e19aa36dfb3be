"""SAM 3 made ready: weights, configuration and tokenizer read from files and checked.

All files are read as data: nothing is asked of a hub, and no code that comes with a file is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pictures
from transformers import Sam3VideoConfig

from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable, printable
from egoworld_ops.files.checkpoints import read_checkpoint
from egoworld_ops.operators.detections._hub_model import config_of, from_arrays
from egoworld_ops.operators.detections._phrases import check_length
from egoworld_ops.operators.detections._sam3_session import Phrase, Sam3

TOKENS, WORDS = 32, 49408
"""Length of every prompt, padded; and how many tokens there are."""
_CURE = "Run: egoworld models fetch sam3"
_BACKBONE = "sam3_vit_model"
"""Others are of packages that may download weights of their own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What of the published configuration a user may set.

    Args:
        min_new_score: of a detection that becomes an object.
        min_score: of a detection that confirms an object.
        nms_iou: masks of one phrase that overlap more are one thing.
        max_objects: objects followed at once.
    """

    min_new_score: float
    min_score: float
    nms_iou: float
    max_objects: int


def preprocess(rgb: np.ndarray, side_px: int) -> torch.Tensor:
    """The network's input: resized without regard to the aspect ratio, -1 to 1, as the package's image processor makes it.

    Args:
        rgb: (H, W, 3) uint8.
        side_px: of the result.

    Returns:
        (3, side_px, side_px) float32.
    """
    image = torch.from_numpy(rgb).permute(2, 0, 1)
    resized = pictures.resize(image, [side_px, side_px], InterpolationMode.BILINEAR, antialias=True)
    return resized.float().sub_(127.5).div_(127.5)


def load(weights: Path, config: Path, limits: Limits, device: torch.device, dtype: torch.dtype) -> Sam3:
    """The network of the published files, in evaluation mode.

    Raises:
        WeightsUnreadable: a file is cut off or damaged.
        WeightsMismatch: a file is of another network.
    """
    known = config_of(Sam3VideoConfig, config, "SAM 3", _CURE)
    parts: list[Any] = [known.detector_config, known.tracker_config]
    if other := {part.vision_config.backbone_config.model_type for part in parts} - {_BACKBONE}:
        raise WeightsMismatch(config, f"it describes a network on {', '.join(sorted(map(printable, other)))}, not on {_BACKBONE}", _CURE)
    apply(known, limits)
    return from_arrays(Sam3, known, read_checkpoint(weights), weights, _CURE, device, dtype)


def phrases(tokenizer: Path, texts: Sequence[str]) -> list[Phrase]:
    """The prompts, by the tokenizer in a file.

    Raises:
        WeightsUnreadable: it is no tokenizer.
        WeightsMismatch: it is of another network.
        UnusablePhrase: a phrase is too long.
    """
    cure = "Run: egoworld models fetch sam3_tokenizer"
    try:
        reader = Tokenizer.from_file(str(tokenizer))
        reader.no_truncation()
        reader.enable_padding(length=TOKENS, pad_id=reader.token_to_id("<|endoftext|>") or 0)
        read = [reader.encode(text) for text in texts]
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # of no class of its own; a panic of its Rust code, as at a regular expression without end, is no Exception
        raise WeightsUnreadable(tokenizer, f"no tokenizer can be made of it: {printable(str(error))}", cure) from error
    if (greatest := max((max(said.ids) for said in read), default=0)) >= WORDS:
        raise WeightsMismatch(tokenizer, f"it has token {greatest}, and SAM 3 knows {WORDS}", cure)
    return [phrase(text, said.ids, said.attention_mask) for text, said in zip(texts, read, strict=True)]


def phrase(text: str, ids: Sequence[int], attended: Sequence[int]) -> Phrase:
    check_length(text, len(ids), TOKENS, "SAM 3")
    return Phrase(text, torch.tensor([ids]), torch.tensor([attended]))


def apply(config: Sam3VideoConfig, limits: Limits) -> None:
    config.new_det_thresh, config.score_threshold_detection = limits.min_new_score, limits.min_score
    config.det_nms_thresh, config.max_num_objects = limits.nms_iou, limits.max_objects
