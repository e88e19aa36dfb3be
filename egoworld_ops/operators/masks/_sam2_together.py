"""SAM 2 tracks several objects in one pass, by the package's own modules.

The package takes one object after the other through memory attention, mask decoder and memory encoder, since each remembers other frames. Here its
own code gathers what each object remembers; those that remember equally much go through memory attention together, and all of them through the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

if not GlobalHydra.instance().is_initialized():
    initialize_config_module("sam2")  # or else sam2 does it on import, in a way that Hydra 1.4 refuses

from sam2.sam2_video_predictor import SAM2VideoPredictor

Remembered: TypeAlias = tuple[torch.Tensor, torch.Tensor, int]
"""Of one object: what memory attention attends to, (T, 1, 64); where and when that was, (T, 1, 64); how many of the last T are object pointers'."""


class PredictorOfSeveral(SAM2VideoPredictor):  # type: ignore[misc]  # sam2 has no types
    """The package's predictor, to whose `_run_single_frame_inference` the memories of several objects may be given (`output_dict`)."""

    def _track_together(self, state: dict[str, Any], memories: Sequence[dict[str, Any]], position: int) -> None:
        """One iteration of the package's `propagate_in_video` for some objects, whose outputs go into their memories.

        Args:
            state: the package's inference state.
            memories: the objects' dictionaries of outputs in the state. None is prompted in this frame.
            position: of the frame.
        """
        tracked, _ = self._run_single_frame_inference(
            inference_state=state,
            output_dict=memories if len(memories) > 1 else memories[0],
            frame_idx=position,
            batch_size=len(memories),
            is_init_cond_frame=False,
            point_inputs=None,
            mask_inputs=None,
            reverse=False,
            run_mem_encoder=True,
        )
        for i, memory in enumerate(memories):
            memory["non_cond_frame_outputs"][position] = _of_one(tracked, i)

    def _prepare_memory_conditioned_features(self, *, output_dict: Any, **given: Any) -> torch.Tensor:
        """The frame's features as each object sees them, (N, C, H, W).

        Args:
            output_dict: the memory of one object, as in the package, or a list of N.
            given: the package's other arguments, with features of N equal frames.
        """
        if isinstance(output_dict, dict):
            one: torch.Tensor = super()._prepare_memory_conditioned_features(output_dict=output_dict, **given)
            return one
        remembered = self._remembered(output_dict, given)
        seen: dict[int, torch.Tensor] = {}
        for alike in _alike(remembered):
            seen |= zip(alike, self._attended([remembered[i] for i in alike], given), strict=True)
        return torch.stack([seen[i] for i in range(len(seen))])

    def _remembered(self, memories: Sequence[dict[str, Any]], given: Mapping[str, Any]) -> list[Remembered]:
        """What the package's own code would give memory attention, object by object."""
        frame = {name: [level[:, :1] for level in given[name]] for name in ("current_vision_feats", "current_vision_pos_embeds")}
        with self._attention_gathers() as gathered:
            for memory in memories:
                super()._prepare_memory_conditioned_features(output_dict=memory, **{**given, **frame})
        return gathered

    @contextmanager
    def _attention_gathers(self) -> Iterator[list[Remembered]]:
        """Memory attention keeps what it is given and attends to nothing."""
        gathered: list[Remembered] = []

        def keep(
            curr: list[torch.Tensor], memory: torch.Tensor, memory_pos: torch.Tensor, num_obj_ptr_tokens: int, **_: Any
        ) -> torch.Tensor:
            gathered.append((memory, memory_pos, num_obj_ptr_tokens))
            return curr[0]

        self.memory_attention.forward = keep
        try:
            yield gathered
        finally:
            del self.memory_attention.forward

    def _attended(self, remembered: Sequence[Remembered], given: Mapping[str, Any]) -> torch.Tensor:
        """Memory attention of objects that remember equally much: (N, C, H, W)."""
        n, (height, width) = len(remembered), given["feat_sizes"][-1]
        attended: torch.Tensor = self.memory_attention(
            curr=[given["current_vision_feats"][-1][:, :n]],
            curr_pos=[given["current_vision_pos_embeds"][-1][:, :n]],
            memory=torch.cat([memory for memory, _, _ in remembered], dim=1),
            memory_pos=torch.cat([places for _, places, _ in remembered], dim=1),
            num_obj_ptr_tokens=remembered[0][2],
        )
        return attended.permute(1, 2, 0).reshape(n, -1, height, width)


def _alike(remembered: Sequence[Remembered]) -> list[list[int]]:
    """Indices of the objects that remember equally many frames and pointers."""
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (memory, _, n_pointers) in enumerate(remembered):
        alike.setdefault((len(memory), n_pointers), []).append(i)
    return list(alike.values())


def _of_one(tracked: Mapping[str, Any], i: int) -> dict[str, Any]:
    """One object's part of an output of several."""
    return {name: [level[i : i + 1] for level in value] if isinstance(value, list) else value[i : i + 1] for name, value in tracked.items()}
