"""SAM 2's video predictor, fed a few frames at a time with bounded memory.

The package's predictor needs all frames first and keeps every frame's output. This one computes the same on the same inputs, so its masks
are equal to the package's, but it holds only the frames encoded together, and of the past only what the model can still read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from egoworld_ops.operators.masks._handover import Handed
from egoworld_ops.operators.masks._sam2_prompts import Prompt
from egoworld_ops.operators.masks._sam2_together import PredictorOfSeveral

# sam2.utils.misc.load_video_frames_from_jpg_images
_IMAGE_MEAN = torch.tensor((0.485, 0.456, 0.406), dtype=torch.float32)[:, None, None]
_IMAGE_STD = torch.tensor((0.229, 0.224, 0.225), dtype=torch.float32)[:, None, None]


def preprocess(rgb: np.ndarray, image_size: int) -> torch.Tensor:
    """The network's input as the package's own loader makes it: resized, ignoring the aspect ratio, and normalised.

    Args:
        rgb: (H, W, 3) uint8.
        image_size: side of the result, px.

    Returns:
        (3, image_size, image_size) float32.
    """
    resized = np.asarray(Image.fromarray(rgb).resize((image_size, image_size)))
    image = torch.from_numpy(resized / 255.0).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return image.sub_(_IMAGE_MEAN).div_(_IMAGE_STD)


@dataclass(frozen=True, slots=True)
class TrackedMask:
    """One track in one frame.

    Args:
        track_id: as in the prompt.
        logits: (H, W) float32 at the video's resolution, on the model's device; the mask is where they are above 0.
        score: probability that the track is visible in the frame: the sigmoid of the model's object score.
    """

    track_id: int
    logits: torch.Tensor
    score: float


class StreamingPredictor(PredictorOfSeveral):
    """The package's predictor with `start`, `encode` and `step` in place of `init_state` and `propagate_in_video`."""

    def start(self, n_frames: int, height: int, width: int, tracks_at_once: int = 1) -> dict[str, Any]:
        """The package's inference state of a video without frames; `encode` adds them.

        Args:
            n_frames: maximum number of frames to come; the model scales time by it where it is below the model's reach.
            height, width: of the video, px.
            tracks_at_once: maximum number of objects that `step` takes through the network in one pass.
        """
        per_object = ("point_inputs", "mask_inputs", "output_dict", "temp_output_dict", "frames_tracked")
        return {
            "images": {},
            "num_frames": n_frames,
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "tracks_at_once": tracks_at_once,
            "device": self.device,
            "storage_device": self.device,
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            **{f"{name}_per_obj": {} for name in per_object},
        }

    @torch.inference_mode()
    def encode(self, state: dict[str, Any], images: Mapping[int, torch.Tensor], size: int = 0) -> None:
        """Compute the features of some frames at once. The state holds them until `step` has used them, and frees them after the last.

        Args:
            state: from `start`.
            images: the next frames by their position among those of this video (0, 1, 2, ...), as `preprocess` makes them.
            size: up to which the batch is filled with the last frame, whose copies are dropped: for an encoder compiled for that size alone.
        """
        pictures = list(images.values())
        batch = torch.stack(pictures + pictures[-1:] * (size - len(pictures))).to(state["device"])
        encoded = self.forward_image(batch)
        places = [level[:1].clone() for level in encoded["vision_pos_enc"]]  # the same for every frame; larger than its features
        for i, position in enumerate(images):
            features = {"backbone_fpn": [level[i : i + 1] for level in encoded["backbone_fpn"]], "vision_pos_enc": places}
            state["cached_features"][position] = (batch[i : i + 1], features)  # what `_get_image_feature` looks up

    @torch.inference_mode()
    def step(self, state: dict[str, Any], position: int, prompts: Sequence[Prompt], handed: Sequence[Handed] = ()) -> list[TrackedMask]:
        """Track everything prompted so far into the next frame.

        Args:
            state: from `start`.
            position: of the frame, which has been encoded.
            prompts: those for this frame. Each makes it a conditioning frame of its track. The first frame stepped into must have some, or masks.
            handed: tracks whose mask in this frame is known, and prompts them.
        """
        for begun in handed:
            self.add_new_mask(state, frame_idx=position, obj_id=begun.key, mask=begun.mask)
        for prompt in prompts:
            self.add_new_points_or_box(
                state,
                frame_idx=position,
                obj_id=prompt.track_id,
                points=prompt.points_px,
                labels=np.ones(len(prompt.points_px), np.int32),
                box=prompt.box_px,
            )
        self.propagate_in_video_preflight(state)
        self._track(state, position)
        outputs = [_output(memory, position) for memory in state["output_dict_per_obj"].values()]
        _, logits = self._get_orig_video_res_output(state, torch.cat([o["pred_masks"] for o in outputs]))
        scores = torch.cat([o["object_score_logits"] for o in outputs]).flatten().float().sigmoid().tolist()
        for index in range(len(outputs)):
            self._forget(state, index, position)
        del state["cached_features"][position]
        return [TrackedMask(i, m, s) for i, m, s in zip(state["obj_ids"], logits[:, 0], scores, strict=True)]

    def _track(self, state: dict[str, Any], position: int) -> None:
        """Track what is not prompted in this frame, so many objects at once as the state says."""
        memories = [memory for memory in state["output_dict_per_obj"].values() if position not in memory["cond_frame_outputs"]]
        for start in range(0, len(memories), state["tracks_at_once"]):
            self._track_together(state, memories[start : start + state["tracks_at_once"]], position)

    def _forget(self, state: dict[str, Any], index: int, position: int) -> None:
        """Drop data that no later frame can read; see `SAM2Base._prepare_memory_conditioned_features`.

        The next frame reads the memory features of `num_maskmem - 1` frames and the object pointers of `max_obj_ptrs_in_encoder - 1`
        frames before it, and all of the `max_cond_frames_in_attn` newest prompted frames; older prompted frames count as ordinary ones. One
        prompted frame more is kept: the package reads them newest first only where it has more than it reads, and their order shows in the
        last bit.
        """
        outputs = state["output_dict_per_obj"][index]
        tracked, prompted = outputs["non_cond_frame_outputs"], outputs["cond_frame_outputs"]
        oldest_feature = position + 1 - (self.num_maskmem - 1) * self.memory_temporal_stride_for_eval
        oldest = min(oldest_feature, position + 1 - (self.max_obj_ptrs_in_encoder - 1))
        for old in [t for t in tracked if t < oldest]:
            del tracked[old]
        for old in [t for t in tracked if t < oldest_feature]:
            tracked[old]["maskmem_features"] = tracked[old]["maskmem_pos_enc"] = None
        for old in [t for t in sorted(prompted)[: -self.max_cond_frames_in_attn - 1] if t < oldest]:
            del prompted[old]
        for output in (*tracked.values(), *prompted.values()):
            output["pred_masks"] = None
        state["point_inputs_per_obj"][index].clear()
        state["mask_inputs_per_obj"][index].clear()


def _output(memory: Mapping[str, Any], position: int) -> dict[str, Any]:
    """An object's output in a frame."""
    found: dict[str, Any] = next(outputs[position] for outputs in memory.values() if position in outputs)
    return found
