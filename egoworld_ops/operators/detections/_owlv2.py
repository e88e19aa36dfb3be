"""OWLv2: boxes of things that a phrase names, in one picture. Weights, configuration and vocabulary are read from files, as data.

The network is that of `transformers`. It sees the picture at the upper left of a grey square, so its boxes are shares of the picture's longer side.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection
from transformers.models.owlv2.image_processing_owlv2 import Owlv2ImageProcessor

from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable
from egoworld_ops.files.checkpoints import read_checkpoint
from egoworld_ops.operators.detections._box_tracks import Found
from egoworld_ops.operators.detections._hub_model import config_of, from_arrays
from egoworld_ops.operators.detections._phrases import check_length

_TOKENS = 16
_PADDING = "!"
_CURE = "Run: egoworld models fetch owlv2"
_NOT_LEARNED = ("position_ids",)
"""Counters that older versions of the package wrote among the weights."""


class Owlv2:
    """The network on one device, with what makes its input."""

    def __init__(
        self, network: Owlv2ForObjectDetection, tokenizer: CLIPTokenizer | None, precision: Literal["float32", "bfloat16"]
    ) -> None:
        self._network, self._tokenizer, self._reduced = network.eval(), tokenizer, precision == "bfloat16"
        vision: Any = network.config.vision_config
        side_px = vision.image_size
        self._prepare = Owlv2ImageProcessor(size={"height": side_px, "width": side_px})

    def tokens(self, phrases: Sequence[str]) -> torch.Tensor:
        """(N, 16) int64.

        Raises:
            UnusablePhrase: a phrase is too long.
        """
        if self._tokenizer is None:
            ids = torch.zeros(len(phrases), _TOKENS, dtype=torch.long)
            for row, phrase in zip(ids, phrases, strict=True):
                words = [1 + zlib.crc32(word.encode()) % 49000 for word in phrase.split()][: _TOKENS - 1]
                row[: len(words) + 1] = torch.tensor([*words, 49407])
            return ids
        read = self._tokenizer([f"a photo of a {p}" for p in phrases], padding="max_length", max_length=_TOKENS)["input_ids"]
        for phrase, ids_of_phrase in zip(phrases, read, strict=True):
            check_length(phrase, len(ids_of_phrase), _TOKENS, "OWLv2 with the words around it")
        return torch.tensor(read)

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray, phrases: Sequence[str], min_score: float) -> list[Found]:
        """Boxes in a picture (H, W, 3) uint8, surest first. A box is of the phrase that it fits best."""
        device = self._network.device
        pixels = self._prepare(images=torch.from_numpy(rgb).permute(2, 0, 1), return_tensors="pt").pixel_values
        with torch.autocast(device.type, torch.bfloat16, enabled=self._reduced):
            said: Any = self._network(pixel_values=pixels.to(device), input_ids=self.tokens(phrases).to(device))
        logits, which = said.logits[0].float().cpu().max(-1)
        best = logits.sigmoid()
        order = [i for i in logits.argsort(descending=True, stable=True).tolist() if best[i] >= min_score]
        boxes = said.pred_boxes[0].float().cpu().numpy().astype(np.float64) * max(rgb.shape[:2])
        found = []
        for i in order:
            low = np.clip(boxes[i, :2] - boxes[i, 2:] / 2, 0, rgb.shape[1::-1])
            high = np.clip(boxes[i, :2] + boxes[i, 2:] / 2, 0, rgb.shape[1::-1])
            if (high - low >= 1).all():
                found.append(Found(phrases[int(which[i])], np.concatenate([low, high - low]), float(best[i])))
        return found


def load(files: Sequence[Path], device: torch.device, precision: Literal["float32", "bfloat16"]) -> Owlv2:
    """The network of the published files: weights, configuration, vocabulary and merges.

    Raises:
        WeightsUnreadable: a file is cut off or damaged.
        WeightsMismatch: a file is of another network.
    """
    weights, config, vocabulary, merges = files
    arrays = {name: array for name, array in read_checkpoint(weights).items() if not name.endswith(_NOT_LEARNED)}
    network = from_arrays(Owlv2ForObjectDetection, config_of(Owlv2Config, config, "OWLv2", _CURE), arrays, weights, _CURE, device)
    text: Any = network.config.text_config
    return Owlv2(network, _tokenizer(vocabulary, merges, text.vocab_size), precision)


def random(seed: int, device: torch.device, precision: Literal["float32", "bfloat16"]) -> Owlv2:
    """A small network of random numbers: what it says means nothing."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Owlv2Config(text_config=dict(small), vision_config=small | {"image_size": 96, "patch_size": 16}, projection_dim=32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Owlv2ForObjectDetection(config)
    return Owlv2(nn.Module.to(network, device), None, precision)


def _tokenizer(vocabulary: Path, merges: Path, n_words: int) -> CLIPTokenizer:
    try:
        words = json.loads(vocabulary.read_text("utf-8"))
        pairs: Any = [tuple(line.split()) for line in merges.read_text("utf-8").splitlines()[1:] if line]
        found = CLIPTokenizer(vocab=words, merges=pairs, pad_token=_PADDING)
        found(["a photo of a hand"])  # without a token for what it does not know it fails here
    except Exception as error:  # the package raises no other class
        raise WeightsUnreadable(vocabulary, f"no tokenizer can be made of it and {merges.name}: {error}", _CURE) from error
    if (greatest := max(words.values())) >= n_words:
        raise WeightsMismatch(vocabulary, f"it has token {greatest}, and the network knows {n_words}", _CURE)
    return found
