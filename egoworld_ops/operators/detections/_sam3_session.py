"""SAM 3's video model, fed one frame at a time with bounded memory.

Model and tracking are those of `transformers`. Its session keeps every frame and every output of a video; this one gives the same masks and keeps
what a later frame can still read. Results are held back until it is sure which of the new objects count, and those that do not are taken out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession, Sam3VideoModel


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text prompt as the network takes it.

    Args:
        text: the words.
        tokens: (1, 32) int64.
        attended: (1, 32) int64, 1 where a token is of the text.
    """

    text: str
    tokens: torch.Tensor
    attended: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object in one frame.

    Args:
        number: the object's within the clip, from 0 in the order of first sightings.
        phrase: the text that found it.
        logits: (h, w) at the network's own resolution of masks, on its device; the mask is where they are above 0.
        score: probability that the object is visible in the frame, and at most that of its first detection.
        capped: whether it is that of its first detection.
    """

    number: int
    phrase: str
    logits: torch.Tensor
    score: float
    capped: bool


class Sam3(Sam3VideoModel):
    """The published model with non-maximum suppression of our own: that of the package is left out, without an error, unless it may download and
    run a kernel from a hub. Small holes are not filled, for the same reason."""

    def __init__(self, config: Sam3VideoConfig) -> None:
        super().__init__(config)
        self.nms_iou = self.det_nms_thresh
        self.det_nms_thresh, self.fill_hole_area = 0.0, 0
        self.n_dropped = 0
        """Objects of the present clip that were not followed, as `max_num_objects` were."""

    def run_detection(self, inference_session: Any, vision_embeds: Any) -> dict[int, dict[str, torch.Tensor]]:
        """The package's detections by phrase, each thing once."""
        found = super().run_detection(inference_session, vision_embeds)
        return {phrase: self._each_once(detected) for phrase, detected in found.items()}

    def run_tracker_update_planning_phase(self, *args: Any, **kwargs: Any) -> Any:
        """The package's plan; objects above the limit are counted."""
        plan, metadata = super().run_tracker_update_planning_phase(*args, **kwargs)
        self.n_dropped += plan["num_obj_dropped_due_to_limit"]
        return plan, metadata

    def _each_once(self, detected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kept = keep_apart(detected["mask"] > 0, detected["scores"], self.nms_iou)
        return {name: values[kept] for name, values in detected.items()}


def keep_apart(masks: torch.Tensor, scores: torch.Tensor, max_iou: float) -> torch.Tensor:
    """Indices, in order, of the masks (N, h, w) bool that overlap by no more than `max_iou` with any that is kept and has a higher score.
    With `max_iou` 0, all of them."""
    if max_iou <= 0 or len(masks) < 2:
        return torch.arange(len(masks), device=masks.device)
    flat = masks.flatten(1).float()
    both, area = flat @ flat.T, flat.sum(1)
    overlaps = (both / (area[:, None] + area - both).clamp(min=1) > max_iou).cpu()
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not overlaps[i, kept].any():
            kept.append(i)
    return torch.tensor(sorted(kept), device=masks.device)


class Session(Sam3VideoInferenceSession):
    """The package's session of a video, with the frames that it has.

    Args:
        phrases: what to look for.
        n_frames: maximum number of frames to come; the model scales time by it where it is below the model's reach.
        device: where all of it is kept.
        dtype: of frames and features.
    """

    def __init__(self, phrases: Sequence[Phrase], n_frames: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(inference_device=device, inference_state_device=device, video_storage_device=device, dtype=dtype)
        self._n_frames = n_frames
        self._leaving: list[int] = []
        for phrase in phrases:
            number = self.add_prompt(phrase.text)
            self.prompt_input_ids[number] = phrase.tokens.to(device)
            self.prompt_attention_masks[number] = phrase.attended.to(device)

    @property
    def num_frames(self) -> int:
        """As if the whole video were here."""
        return self._n_frames

    def remove_object(self, obj_id: int, strict: bool = False) -> None:
        """Put off to the end of the frame: the package removes an object before it assigns the frame's masks and scores to objects by their order,
        so that those after it would get their neighbour's."""
        self._leaving.append(obj_id)

    def end_frame(self, position: int, config: Sam3VideoConfig) -> list[int]:
        """Remove the objects that do not count, forget what no later frame can read, and name the objects removed."""
        removed, self._leaving = self._leaving, []
        for number in removed:
            self.obj_ids = list(self._obj_id_to_idx)
            super().remove_object(number)
        self.processed_frames = None
        for outputs in self.output_dict_per_obj.values():
            _forget_outputs(outputs, position, config.tracker_config)
        for by_object in (self.mask_inputs_per_obj, self.frames_tracked_per_obj):
            for by_frame in by_object.values():
                by_frame.clear()
        for by_frame in (self.obj_id_to_tracker_score_frame_wise, self.suppressed_obj_ids):
            by_frame.clear()
        self._forget_objects(max(config.hotstart_unmatch_thresh, config.hotstart_dup_thresh))
        return removed

    def _forget_objects(self, enough: int) -> None:
        """Drop the counters of objects that are gone. Of the frames in which an object was not detected, or overlapped with another, only whether
        they are `enough` is ever asked."""
        here = set(self.obj_ids)
        for by_object in (self.obj_id_to_score, self.obj_first_frame_idx, self.trk_keep_alive, self.unmatched_frame_inds):
            for number in [n for n in by_object if n not in here]:
                del by_object[number]
        for pair in [p for p in self.overlap_pair_to_frame_inds if not here.issuperset(p)]:
            del self.overlap_pair_to_frame_inds[pair]
        for frames in (*self.unmatched_frame_inds.values(), *self.overlap_pair_to_frame_inds.values()):
            del frames[:-enough]
        self.removed_obj_ids.clear()


def _forget_outputs(outputs: dict[str, dict[int, Any]], position: int, tracker: Any) -> None:
    """Drop what no later frame can read of an object's outputs; see the package's `_prepare_memory_conditioned_features`.

    The next frame reads the memory of `num_maskmem - 1` frames and the pointers of `max_object_pointers_in_encoder - 1` frames before it, and the
    memory of the `max_cond_frame_num` newest conditioning frames. One more of these is kept, since the order in which they are read depends on
    whether there are more. Pointers of older conditioning frames, which the package also reads, are forgotten, as SAM 2's own code does.
    """
    tracked, conditioning = outputs["non_cond_frame_outputs"], outputs["cond_frame_outputs"]
    oldest_memory = position + 1 - (tracker.num_maskmem - 1)
    oldest = min(oldest_memory, position + 1 - (tracker.max_object_pointers_in_encoder - 1))
    for old in [t for t in tracked if t < oldest]:
        del tracked[old]
    for old in sorted(conditioning)[: -tracker.max_cond_frame_num - 1]:
        if old < oldest_memory:
            del conditioning[old]
    for output in (*tracked.values(), *conditioning.values()):
        output.pop("high_res_masks", None)
        output.pop("pred_masks", None)
    for old in [t for t in tracked if t < oldest_memory]:
        tracked[old].pop("maskmem_features", None)
        tracked[old].pop("maskmem_pos_enc", None)


def full_masks(seen: Sequence[Sighting], height: int, width: int) -> list[np.ndarray]:
    """The masks (height, width) bool of the objects of one frame, at the size of the picture. A pixel belongs to the object of the highest logit."""
    owner = torch.full((height, width), -1, dtype=torch.int16)
    best = torch.zeros((height, width))
    for i, sighting in enumerate(seen):
        logits = interpolate(sighting.logits[None, None].float(), (height, width), mode="bilinear", align_corners=False)[0, 0]
        owner, best = owner.to(logits.device), best.to(logits.device)
        wins = logits > best
        owner[wins], best[wins] = i, logits[wins]
    owners = owner.cpu().numpy()
    return [owners == i for i in range(len(seen))]


class Stream:
    """The objects of one clip, from its frames in order.

    Args:
        model: on its device, in evaluation mode.
        phrases: what to look for.
        n_frames: maximum number of frames to come.
    """

    def __init__(self, model: Sam3, phrases: Sequence[Phrase], n_frames: int) -> None:
        self._model, self._config = model, model.config
        self.session = Session(phrases, n_frames, model.device, model.dtype)
        self._held: deque[list[Sighting]] = deque()
        self._newest: list[Sighting] = []
        self._next = 0
        model.n_dropped = 0

    def step(self, image: torch.Tensor) -> list[list[Sighting]]:
        """Take the next frame, (3, side, side) as `preprocess` makes it, and give what is seen in the frames that are sure now, in their order: none
        before `hotstart_delay` frames have been taken, then one each time."""
        position, session = self._next, self.session
        self._next += 1
        session.add_new_frame(image, position)
        found = self._model(inference_session=session, frame_idx=position)
        seen = [self._sighting(found, number) for number in sorted(found.obj_id_to_mask) if number not in found.suppressed_obj_ids]
        self._newest = seen
        self._held.append(seen)
        removed = set(session.end_frame(position, self._config))
        if removed:
            self._held = deque([s for s in held if s.number not in removed] for held in self._held)
        return [self._held.popleft()] if len(self._held) >= max(self._config.hotstart_delay, 1) else []

    @property
    def newest(self) -> list[Sighting]:
        """What is seen in the frame that was taken last, whether it is sure or not; empty images of things too."""
        return self._newest

    def rest(self) -> list[list[Sighting]]:
        """What is seen in the frames that are still held back, after the last one."""
        held, self._held = list(self._held), deque()
        return held

    def _sighting(self, found: Any, number: int) -> Sighting:
        phrase = self.session.prompts[self.session.obj_id_to_prompt_id[number]]
        now, first = float(found.obj_id_to_tracker_score[number]), float(found.obj_id_to_score[number])
        return Sighting(number, phrase, found.obj_id_to_mask[number][0], min(max(min(now, first), 0.0), 1.0), first < now)
