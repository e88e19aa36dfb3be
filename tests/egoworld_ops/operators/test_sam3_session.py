"""SAM 3 streamed with bounded memory against the package's own pass over the whole video, with a small random network."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from egoworld_ops import models
from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable
from egoworld_ops.files import safetensors
from egoworld_ops.models import content
from egoworld_ops.operators.detections import _hub_model, _sam3_model, _sam3_random
from egoworld_ops.operators.detections._sam3_session import Phrase, Sam3, Session, Sighting, Stream, keep_apart

CPU = torch.device("cpu")
SEED, N_FRAMES = 5, 34
LIMITS = _sam3_model.Limits(min_new_score=0.3, min_score=0.25, nms_iou=0.3, max_objects=5)
"""With these the random network finds objects all the time: some are found twice, some do not last, some do."""
RECONDITIONED = {"high_conf_thresh": 0.3, "high_iou_thresh": 0.05}
"""Detections of the random network are sure enough to remind the tracker of an object, every 16 frames."""
KERNEL = "transformers.models.sam3_video.modeling_sam3_video"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Sam3:
    return _sam3_random.random(SEED, LIMITS, CPU, torch.float32, **RECONDITIONED)


@pytest.fixture(scope="module")
def phrases() -> list[Phrase]:
    generator = torch.Generator().manual_seed(11)
    tokens = [torch.randint(0, 49000, (1, 32), generator=generator) for _ in range(2)]
    return [Phrase(text, ids, torch.ones(1, 32, dtype=torch.long)) for text, ids in zip(("hand", "cup"), tokens, strict=True)]


def images(n: int, drift: float = 0.1) -> Iterator[torch.Tensor]:
    """Noise that changes slowly."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 84, 84, generator=generator)
    for _ in range(n):
        yield image
        image = (1 - drift) * image + (1 - (1 - drift) ** 2) ** 0.5 * torch.randn(3, 84, 84, generator=generator)


def streamed(model: Sam3, phrases: Sequence[Phrase], n: int = N_FRAMES) -> list[dict[int, Sighting]]:
    stream = Stream(model, phrases, n)
    frames = [seen for image in images(n) for seen in stream.step(image)] + stream.rest()
    return [{s.number: s for s in seen} for seen in frames]


def greedy(ious: torch.Tensor, scores: torch.Tensor, threshold: float, use_iou_matrix: bool) -> torch.Tensor:
    """What the kernel that the package would download does, from the definition of non-maximum suppression."""
    assert use_iou_matrix
    left = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
    kept = []
    while left:
        kept.append(left[0])
        left = [i for i in left[1:] if ious[left[0], i] <= threshold]
    return torch.tensor(kept)


@dataclass
class Whole:
    """The package's pass over a whole video: masks by frame and object; those of its tracker, before the package assigns them to objects; and the
    frames in which objects were removed."""

    masks: list[dict[int, torch.Tensor]]
    tracked: list[dict[int, torch.Tensor]]
    removed_at: set[int]


@pytest.fixture(scope="module")
def whole(model: Sam3, phrases: list[Phrase]) -> Whole:
    from transformers import Sam3VideoModel
    from transformers.models.sam3_video import modeling_sam3_video as package

    model_config = model.config.__class__.from_dict(model.config.to_dict())
    model_config.fill_hole_area = 0
    reference = Sam3VideoModel(model_config).eval()
    reference.load_state_dict(model.state_dict())
    removed_at: set[int] = set()

    class Noted(package.Sam3VideoInferenceSession):
        def remove_object(self, obj_id: int, strict: bool = False) -> None:
            removed_at.add(max(self.cache._vision_features))
            super().remove_object(obj_id, strict)

    session = Noted(torch.stack(list(images(N_FRAMES))), 84, 84, dtype=torch.float32)
    for phrase in phrases:
        number = session.add_prompt(phrase.text)
        session.prompt_input_ids[number], session.prompt_attention_masks[number] = phrase.tokens, phrase.attended
    masks, tracked = [], []
    propagate = reference.run_tracker_propagation

    def noted(**known: Any) -> Any:
        before = list(session.obj_ids)
        found, scores = propagate(**known)
        tracked.append(dict(zip(before, found.clone(), strict=True)))
        return found, scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "run_tracker_propagation", noted)
        patch.setattr(package, "cv_utils_kernel", SimpleNamespace(generic_nms=greedy))
        for out in reference.propagate_in_video_iterator(session):
            gone = session.hotstart_removed_obj_ids
            masks.append({number: mask[0] for number, mask in out.obj_id_to_mask.items() if number not in gone})
    return Whole(masks, tracked, removed_at)


def same(ours: dict[int, Sighting], theirs: dict[int, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n].logits, theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def ours(model: Sam3, phrases: list[Phrase]) -> list[dict[int, Sighting]]:
    return streamed(model, phrases)


def test_masks_are_those_of_the_package_with_the_whole_video_in_memory(ours: list[dict[int, Sighting]], whole: Whole) -> None:
    assert len(ours) == len(whole.masks) == N_FRAMES
    others = [i for i in range(N_FRAMES) if i not in whole.removed_at]
    assert [i for i in others if not same(ours[i], whole.masks[i])] == []
    shown = {
        number: [i for i in range(N_FRAMES) if number in ours[i] and (ours[i][number].logits > 0).any()] for seen in ours for number in seen
    }
    lasting = max(shown.values(), key=len)
    assert len(lasting) >= 28, "an object is followed"
    assert min(map(min, shown.values())) < max(map(min, shown.values())), "one comes late"
    assert len(whole.removed_at) >= 5, "objects that do not last were removed"
    assert not {number for seen in ours for number in seen} & _short_lived(ours)


def _short_lived(frames: list[dict[int, Sighting]]) -> set[int]:
    """Objects that are gone long before the video ends."""
    last = {number: i for i, seen in enumerate(frames) for number in seen}
    return {number for number, i in last.items() if i < N_FRAMES - 1}


def test_where_an_object_is_removed_the_others_keep_their_own_masks(ours: list[dict[int, Sighting]], whole: Whole) -> None:
    """The package gives them their neighbour's in that frame."""
    mended = [i for i in sorted(whole.removed_at) if not same(ours[i], whole.masks[i])]
    assert mended, "the package was mended: `Session.remove_object` is no longer needed"
    for i in mended:
        assert all(torch.equal(ours[i][number].logits, mask) for number, mask in whole.tracked[i].items() if number in ours[i])


def test_nothing_is_downloaded_or_run_from_a_hub(files: Path, model: Sam3, phrases: list[Phrase], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the package looks for a kernel, or for a hub")

    monkeypatch.setattr(f"{KERNEL}._load_cv_utils_kernel_once", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    load(files)
    _sam3_model.phrases(files / "tokenizer.json", ["red cup"])
    streamed(model, phrases, 3)


def size_bytes(value: Any, seen: set[int]) -> int:
    """All that is reachable: tensors by their storage, and an entry of a container as 64 bytes."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if torch.is_tensor(value):
        return value.untyped_storage().nbytes()
    if isinstance(value, Sighting):
        return size_bytes(value.logits, seen)
    if isinstance(value, dict):
        return sum(64 + size_bytes(v, seen) for v in value.values())
    if isinstance(value, list | tuple | set | deque):
        return sum(64 + size_bytes(v, seen) for v in value)
    return size_bytes(vars(value), seen) if hasattr(value, "__dict__") else 0


def test_memory_is_flat(phrases: list[Phrase]) -> None:
    """Two objects, of which the tracker is reminded every fourth frame: the package would keep each of these frames."""
    lasting = _sam3_random.random(3, LIMITS, CPU, torch.float32, recondition_every_nth_frame=4, **RECONDITIONED)
    stream = Stream(lasting, phrases, 60)
    held = []
    for image in images(60):
        stream.step(image)
        held.append(size_bytes([stream.session, stream._held], set()))
    assert stream.session.obj_ids == [0, 1]
    assert [len(outputs["cond_frame_outputs"]) for outputs in stream.session.output_dict_per_obj.values()] == [5, 5]
    assert max(held[40:]) == max(held[20:40])


def test_of_masks_that_overlap_the_surest_is_kept() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        n = int(rng.integers(0, 9))
        corners = rng.integers(0, 12, (n, 2))
        masks = torch.zeros(n, 20, 20, dtype=torch.bool)
        for mask, (x, y) in zip(masks, corners, strict=True):
            mask[y : y + 8, x : x + 8] = True
        scores = torch.from_numpy(rng.random(n).astype(np.float32))
        flat = masks.flatten(1).float()
        both = flat @ flat.T
        ious = both / (64 + 64 - both)
        want = sorted(greedy(ious, scores, 0.3, True).tolist()) if n else []
        assert keep_apart(masks, scores, 0.3).tolist() == want


def test_of_as_many_masks_as_the_network_has_queries_memory_stays_small() -> None:
    """The package's own overlap of masks, which has every pair of pixels of them all at once, takes 26.5 GB for these."""
    corners = np.random.default_rng(1).integers(0, 200, (200, 2))
    masks = torch.zeros(200, 288, 288, dtype=torch.bool)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + 60, x : x + 60] = True
    kept = keep_apart(masks, torch.arange(200) / 200, 0.1)
    assert 5 < len(kept) < 50
    assert kept[-1] == 199


def test_no_more_objects_are_followed_than_allowed(phrases: list[Phrase]) -> None:
    few = _sam3_random.random(SEED, _sam3_model.Limits(0.3, 0.25, 0.9, 2), CPU, torch.float32)
    with _hub_model.quiet():
        stream = Stream(few, phrases, 8)
        for image in images(8):
            stream.step(image)
            assert len(stream.session.obj_ids) <= 2
    assert few.n_dropped > 0


def test_pictures_are_prepared_as_the_package_prepares_them() -> None:
    from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

    rgb = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    want = Sam3ImageProcessor()(images=rgb, return_tensors="pt").pixel_values[0]
    assert torch.equal(_sam3_model.preprocess(rgb, 1008), want)


@pytest.fixture(scope="module")
def files(model: Sam3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network's weights, configuration and tokenizer, as they are published."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("sam3")
    write(folder / "sam3.safetensors", {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    (folder / "config.json").write_text(model.config.to_json_string())
    reader = Tokenizer(models.WordLevel({"<unk>": 0, "hand": 5, "red": 6, "cup": 7, "<|endoftext|>": 9}, "<unk>"))
    reader.pre_tokenizer = pre_tokenizers.Whitespace()
    reader.save(str(folder / "tokenizer.json"))
    return folder


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        for chunk in safetensors.chunks(arrays, {}):
            stream.write(chunk)


def load(folder: Path) -> Sam3:
    return _sam3_model.load(folder / "sam3.safetensors", folder / "config.json", LIMITS, CPU, torch.float32)


def test_published_files_give_the_network(files: Path, model: Sam3, phrases: list[Phrase]) -> None:
    loaded, want = streamed(load(files), phrases, 4), streamed(model, phrases, 4)
    assert [seen.keys() for seen in loaded] == [seen.keys() for seen in want]
    assert all(torch.equal(a[n].logits, b[n].logits) for a, b in zip(loaded, want, strict=True) for n in a)
    for name, file in (("sam3", "sam3.safetensors"), ("sam3_config", "config.json"), ("sam3_tokenizer", "tokenizer.json")):
        content.check(models.REGISTRY[name], files / file)


def test_a_phrase_is_padded_to_the_network_s_length(files: Path) -> None:
    [phrase] = _sam3_model.phrases(files / "tokenizer.json", ["red cup"])
    assert phrase.tokens[0, :2].tolist() == [6, 7]
    assert phrase.attended[0].tolist() == [1, 1] + [0] * 30


@pytest.mark.parametrize(("word", "number", "reason"), [("<unk>", 4_000_000_000, "it has token 4000000000"), ("a", 0, "no tokenizer")])
def test_a_tokenizer_of_another_network_is_named(files: Path, tmp_path: Path, word: str, number: int, reason: str) -> None:
    said = json.loads((files / "tokenizer.json").read_text())
    said["model"]["vocab"] = {word: number}
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises((WeightsUnreadable, WeightsMismatch), match=reason):
        _sam3_model.phrases(tmp_path / "tokenizer.json", ["spoon"])


def test_a_tokenizer_whose_rule_never_ends_is_an_error_and_no_panic(files: Path, tmp_path: Path) -> None:
    said = json.loads((files / "tokenizer.json").read_text())
    said["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(o+)+$"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(WeightsUnreadable, match=r"no tokenizer can be made of it: .*Regex.*Run: egoworld models fetch sam3_tokenizer"):
        _sam3_model.phrases(tmp_path / "tokenizer.json", [f"sp{'o' * 40}n"])


def test_files_that_are_not_what_they_should_be(files: Path, tmp_path: Path, model: Sam3) -> None:
    whole = (files / "sam3.safetensors").read_bytes()
    config = (files / "config.json").read_text()

    def put(weights: bytes = whole, said: str = config) -> Path:
        (tmp_path / "sam3.safetensors").write_bytes(weights)
        (tmp_path / "config.json").write_text(said)
        return tmp_path

    with pytest.raises(WeightsUnreadable):
        load(put(weights=whole[: len(whole) // 2]))
    with pytest.raises(WeightsUnreadable):
        load(put(said=config[:100]))
    with pytest.raises(WeightsUnreadable):
        load(put(said=json.dumps({"model_type": "sam3_video", "detector_config": {"model_type": "no such thing"}})))
    other = json.loads(config)
    other["detector_config"]["detr_decoder_config"]["num_queries"] = 9
    with pytest.raises(WeightsMismatch, match="another shape"):
        load(put(said=json.dumps(other)))
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    first = sorted(arrays)[0]
    put()
    write(
        tmp_path / "sam3.safetensors", {name: array for name, array in arrays.items() if name != first} | {"more": np.zeros(3, np.float32)}
    )
    with pytest.raises(WeightsMismatch, match=f"lacks 1 arrays, such as {first}; has besides 1 arrays, such as more") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsUnreadable):
        _sam3_model.phrases(files / "config.json", ["hand"])


@pytest.mark.parametrize(
    ("part", "wrong"), [("detector_config", 3), ("image_size", "big"), ("low_res_mask_size", {}), ("detector_config", {"vision_config": 5})]
)
def test_a_configuration_of_wrong_values_is_one_line(files: Path, tmp_path: Path, part: str, wrong: Any) -> None:
    said = json.loads((files / "config.json").read_text()) | {part: wrong}
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(WeightsUnreadable, match="Run: egoworld models fetch sam3") as caught:
        _sam3_model.load(files / "sam3.safetensors", tmp_path / "config.json", LIMITS, CPU, torch.float32)
    assert "\n" not in str(caught.value)


def test_a_configuration_of_another_network_is_none(files: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam3"}))
    with pytest.raises(WeightsMismatch, match="it describes a sam3, not a sam3_video"):
        _sam3_model.load(files / "sam3.safetensors", tmp_path / "config.json", LIMITS, CPU, torch.float32)


def test_a_configuration_names_no_code_to_run(files: Path, tmp_path: Path) -> None:
    """The package takes `attn_implementation = "owner/repository"` for code on the hub, which it downloads and runs."""
    said = json.loads((files / "config.json").read_text()) | {"attn_implementation": "owner/code", "_attn_implementation": "owner/code"}
    said["detector_config"] |= {"attn_implementation": "owner/code", "auto_map": {"AutoModel": "owner/code--code.Model"}}
    said["tracker_config"]["mask_decoder_config"]["_experts_implementation"] = "owner/code"
    said["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(said))
    loaded = _sam3_model.load(files / "sam3.safetensors", tmp_path / "config.json", LIMITS, CPU, torch.float32)
    assert "owner/code" not in {part.config._attn_implementation for part in loaded.modules() if hasattr(part, "config")}
    assert "owner/code" not in loaded.config.to_json_string()


def test_a_configuration_brings_no_backbone_that_fetches_its_own_weights(files: Path, tmp_path: Path) -> None:
    said = json.loads((files / "config.json").read_text())
    foreign = {"model_type": "timm_backbone", "backbone": "resnet18", "use_pretrained_backbone": True}
    said["detector_config"]["vision_config"]["backbone_config"] = foreign
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(WeightsMismatch, match="a network on timm_backbone, not on sam3_vit_model"):
        _sam3_model.load(files / "sam3.safetensors", tmp_path / "config.json", LIMITS, CPU, torch.float32)


def test_it_computes_in_half_precision(files: Path, phrases: list[Phrase]) -> None:
    half = _sam3_model.load(files / "sam3.safetensors", files / "config.json", LIMITS, CPU, torch.bfloat16)
    seen = streamed(half, phrases, 5)
    assert len(seen) == 5
    assert any(seen)


def test_a_session_is_as_long_as_its_video(phrases: list[Phrase]) -> None:
    assert Session(phrases, 7, CPU, torch.float32).num_frames == 7
