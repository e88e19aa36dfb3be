"""The backend `grounding` without weights: tracks over searches, a finder that tells the truth on a real hand, a random network, set-up errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torchvision.ops import batched_nms

from egoworld_ops import models
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSettings, BadSidecar, SetupError, WeightsMismatch, WeightsMissing, WeightsUnreadable
from egoworld_ops.files import safetensors
from egoworld_ops.models import content
from egoworld_ops.operators.detections import _owlv2, grounding, mediapipe
from egoworld_ops.operators.detections._box_tracks import BoxTracks, Found, each_once
from egoworld_ops.operators.detections._phrases import UnusablePhrase, blamed, check_length, phrases_for
from egoworld_ops.operators.masks._sam2_prompts import prompts_by_frame
from egoworld_ops.video import decoding
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision import rle
from egoworld_ops.vision.boxes import iou
from tests.egoworld_ops.operators.clips import pictures_input
from tests.planted import agreement
from tests.rows import detection_row, sample_row

CPU = torch.device("cpu")
SEED = 0


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**options: Any) -> grounding.Backend:
    return grounding.Backend(grounding.Settings(**{"device": "cpu", "random_weights_seed": SEED, **options}), threads=1)


def detect(operator: grounding.Backend, pictures: list[np.ndarray], objects: tuple[SidecarObject, ...] = ()) -> pa.Table:
    table = operator.run(replace(pictures_input(pictures), sidecar=Sidecar(objects=objects)))
    validation.validate("detections", table)
    return table


def noise(height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def test_boxes_are_those_of_the_package_in_a_picture_that_is_not_square() -> None:
    """Boxes are shares of the longer side, which users of the package took for shares of either (huggingface/transformers#27205)."""
    rgb = noise(96, 160)
    finder = _owlv2.random(SEED, CPU, "float32")
    phrases = ["hand", "red cup"]
    with torch.inference_mode():
        inputs = finder._prepare(images=rgb, return_tensors="pt")
        said = finder._network(**inputs, input_ids=finder.tokens(phrases))
    [want] = finder._prepare.post_process_object_detection(said, threshold=0.1, target_sizes=[rgb.shape[:2]])
    corners = want["boxes"].numpy().clip(0, (160, 96, 160, 96))
    rows = np.concatenate(
        [want["labels"].numpy()[:, None], corners[:, :2], corners[:, 2:] - corners[:, :2], want["scores"].numpy()[:, None]], 1
    )
    rows = rows[(rows[:, 3:5] >= 1).all(1)]
    found = finder(rgb, phrases, 0.1)
    ours = np.array([[phrases.index(f.phrase), *f.box_px, f.score] for f in found])
    assert len(ours) == len(rows) > 3
    assert all(np.abs(rows - row).max(1).min() < 1e-3 for row in ours)
    assert (np.diff(ours[:, 5]) <= 0).all(), "surest first"


def test_a_thing_is_found_once() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        boxes = np.concatenate([rng.uniform(0, 60, (12, 2)), rng.uniform(10, 50, (12, 2))], 1)
        scores, which = rng.permutation(12) / 12, rng.integers(0, 2, 12)
        found = [Found("ab"[w], box, float(s)) for w, box, s in zip(which, boxes, scores, strict=True)]
        corners = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        want = batched_nms(corners, torch.from_numpy(scores), torch.from_numpy(which), 0.4)
        assert [f.score for f in each_once(found, 0.4)] == [float(scores[i]) for i in want]


class Scene:
    """Textured squares of 60 px that move before a textured ground, 320x240."""

    def __init__(self, paths: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self._ground = noise(240, 320, 7)
        self._squares = [noise(64, 64, 10 + i)[:60, :60] for i in range(len(paths))]
        self._paths = paths

    def box_px(self, thing: int, index: int) -> np.ndarray:
        start, step = self._paths[thing]
        return np.array([*np.round(start + index * step), 60, 60], np.float64)

    def picture(self, index: int) -> np.ndarray:
        rgb = self._ground.copy()
        for i, square in enumerate(self._squares):
            x, y = self.box_px(i, index)[:2].astype(int)
            rgb[y : y + 60, x : x + 60] = square
        return rgb


def test_things_of_one_phrase_keep_their_numbers_while_they_move_far_between_searches() -> None:
    """Each moves by more than its size, so that overlap alone would take one for the other, or for a new one."""
    scene = Scene([(np.array([20.0, 20.0]), np.array([5.0, 1.0])), (np.array([240.0, 150.0]), np.array([-5.0, -1.0]))])
    tracks = BoxTracks(0.3, 0.2, 2)
    numbers, off_px = [], []
    for index in range(31):
        tracks.follow(scene.picture(index))
        off_px += [float(np.abs(t.box_px - scene.box_px(t.number, index)).max()) for t in tracks.followed]
        if index % 15 == 0:
            boxes = [Found("block", scene.box_px(i, index), 0.9 - 0.1 * i) for i in (0, 1)]
            numbers.append([t.number for t in tracks.match(boxes if index != 15 else boxes[::-1])])
    assert numbers == [[0, 1]] * 3
    assert max(off_px) < 12
    assert tracks.passing() == set()


def test_things_come_late_are_lost_and_found_again_and_ghosts_are_known() -> None:
    still = Scene([])
    place, elsewhere = np.array([30.0, 40.0, 50.0, 50.0]), np.array([200.0, 150.0, 50.0, 50.0])
    searches = [
        [Found("cup", place, 0.9)],
        [Found("cup", place, 0.2), Found("knife", elsewhere, 0.5)],  # a weak box confirms; another thing comes
        [Found("cup", elsewhere, 0.2)],  # too weak and too far to be the cup, or a new one
        [],
        [],
        [Found("cup", elsewhere, 0.2)],  # the only cup, lost for long enough, comes back elsewhere
    ]
    tracks = BoxTracks(0.3, 0.2, 2)
    found = []
    for boxes in searches:
        tracks.follow(still.picture(0))
        found.append([(t.number, t.phrase) for t in tracks.match(boxes)])
    assert found == [[(0, "cup")], [(0, "cup"), (1, "knife")], [], [], [], [(0, "cup")]]
    assert tracks.passing() == {1}


def test_a_mask_that_is_not_at_what_a_search_finds_is_flagged_in_that_frame() -> None:
    """Two blocks are looked for in frames 0, 15 and 30. SAM 2's mask of the second runs away by frame 15; in frame 30 the two are exchanged."""
    boxes = {10: np.array([20.0, 20.0, 60.0, 60.0]), 11: np.array([200.0, 120.0, 60.0, 60.0])}

    def mask_row(index: int, track: int, box_px: np.ndarray) -> dict[str, Any]:
        mask = np.zeros((240, 320), bool)
        x, y, w, h = box_px.astype(int)
        mask[y : y + h, x : x + w] = True
        known = {"role": "object", "track_id": track, "label": "block", "timestamp_s": index / 30}
        return sample_row("masks", index, **known, rle=rle.encode(mask), bbox_px=box_px, area_px=3600)

    about = {"role": "object", "label": "block", "points_px": None, "landmarks_m": None, "owner": None, "source": "text"}
    detections = [detection_row(i, **about, track_id=track, box_px=box) for i in (0, 15, 30) for track, box in boxes.items()]
    places = {i: dict(boxes) for i in range(31)}
    for i in range(8, 23):
        places[i][11] = boxes[11] - [0, 100 * (1 - abs(i - 15) / 8), 0, 0]
    places[30] = {10: boxes[11], 11: boxes[10]}
    masks = [mask_row(i, track, box) for i, now in places.items() for track, box in now.items()]
    tables = {name: schema.empty(name) for name in ("hand_pose", "fusion", "object_pose")}
    tables |= {"detections": schema.from_rows("detections", detections), "masks": schema.from_rows("masks", masks)}
    said = {(r["frame_index"], r["track_id"]): r["disagreement"] for r in agreement(tables).to_pylist() if r["disagreement"]}
    assert said == {(15, 11): "box_off_mask", (30, 10): "other_thing", (30, 11): "other_thing"}


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[np.ndarray]:
    """20 frames of a moving right hand, 1280x720."""
    return [f.rgb for f in decoding.decode(shared_data / "dexretarget_human_hand_video.mp4", 0, 40, stride=2)]


def test_hands_have_rows_in_all_frames_and_objects_where_they_are_looked_for(pictures: list[np.ndarray]) -> None:
    seen = mediapipe.Backend(mediapipe.Settings(objects=False), 1).run(pictures_input(pictures)).to_pylist()
    points = [np.array(row["points_px"]) for row in seen]
    assert len(points) == len(pictures)
    searches = iter(range(0, 20, 5))
    bottle = np.array([100.0, 500.0, 80.0, 120.0])

    def truth(rgb: np.ndarray, phrases: Sequence[str], min_score: float) -> list[Found]:
        at = next(searches)
        hand = Found("hand", np.concatenate([points[at].min(0), np.ptp(points[at], axis=0)]), 0.8)
        boxes = [hand] if at < 15 else []  # the last search misses the hand
        if at >= 10:
            boxes += [Found("bottle", bottle, 0.9), Found("bottle", bottle + 2, 0.4)]
        return boxes if at != 5 else [*boxes, Found("bottle", bottle + np.array([900.0, -400.0, 0.0, 0.0]), 0.9)]

    operator = make(interval_frames=5)
    operator._find = truth  # type: ignore[assignment]
    table = detect(operator, pictures, (SidecarObject(label="my bottle", text="bottle"),))
    hands = [row for row in table.to_pylist() if row["role"] != "object"]
    assert [(row["frame_index"], row["role"]) for row in hands] == [(i, "hand_right") for i in range(20)]
    assert [row["score_age_s"] for row in hands] == pytest.approx([i % 5 / 30 for i in range(15)] + [i / 30 for i in range(5, 10)])
    for row, want in zip(hands, points, strict=True):
        assert np.linalg.norm(np.array(row["points_px"]) - want, axis=1).mean() < 0.03 * np.ptp(want, axis=0).max()
    things = [row for row in table.to_pylist() if row["role"] == "object"]
    assert [(row["frame_index"], row["label"], row["track_id"]) for row in things] == [(10, "my bottle", 10), (15, "my bottle", 10)], (
        "late; once; and not where one search alone saw it"
    )
    assert {row["score_age_s"] for row in things} == {0.0}
    assert min(float(iou(np.array(row["box_px"]), bottle)) for row in things) > 0.99
    prompts = prompts_by_frame(table, (5, 9), 1280, 720)
    assert {track for frame in prompts.values() for track in frame} == {2, 10}
    assert np.allclose(prompts[10][10].box_px, [100, 500, 180, 620], atol=0.5)


def test_where_nothing_is_found_the_table_is_empty() -> None:
    operator, asked = make(interval_frames=2, phrases=("cup",)), []
    operator._find = lambda rgb, phrases, min_score: asked.append(list(phrases)) or []  # type: ignore[assignment]
    assert detect(operator, [noise(96, 160, i) for i in range(5)]).equals(schema.empty("detections"))
    assert asked == [["hand", "cup"]] * 3


def test_a_random_network_runs_and_says_so() -> None:
    table = detect(make(interval_frames=2, phrases=("cup",)), [noise(96, 160, i) for i in range(5)])
    assert set(table["backend"].to_pylist()) == {"grounding-random"}
    assert detect(make(hands=""), [noise(96, 160)]).equals(schema.empty("detections"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights, configuration, vocabulary and merges as they are published, of a random network."""
    folder = tmp_path_factory.mktemp("owlv2")
    network = _owlv2.random(SEED, CPU, "float32")._network
    write(folder / "owlv2.safetensors", {name: t.numpy() for name, t in network.state_dict().items()})
    (folder / "config.json").write_text(network.config.to_json_string())
    words = ["!", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz"), "cu", "cup</w>"]
    special = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)} | special))
    (folder / "merges.txt").write_text("#version: 0.2\nc u\ncu p</w>\n")
    return [folder / name for name in ("owlv2.safetensors", "config.json", "vocab.json", "merges.txt")]


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        for chunk in safetensors.chunks(arrays, {}):
            stream.write(chunk)


def test_published_files_give_the_network_and_its_words_and_no_hub_is_asked(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a hub is asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    content.check(models.REGISTRY["owlv2_config"], files[1])
    found = _owlv2.load(files, CPU, "float32")
    want = _owlv2.random(SEED, CPU, "float32")._network.state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in found._network.state_dict().items())
    [ids] = found.tokens(["cup"]).tolist()
    assert ids[0] == 49406
    assert ids[ids.index(49407) - 1] == 54, "the word is one token"
    assert set(ids[ids.index(49407) + 1 :]) == {0}
    with pytest.raises(UnusablePhrase, match=r"it has \d+ tokens, OWLv2 .* reads 16"):
        found.tokens(["cup", "a very long name " * 9])


def test_a_phrase_that_is_too_long_stops_the_videos_of_whoever_gave_it() -> None:
    long = "a very long name " * 9
    known = (SidecarObject(label="mug", text=long),)
    for settings, sidecar, wanted in (((), known, BadSidecar), ((long,), (), BadSettings), ((long,), known, BadSettings)):
        phrases = phrases_for("hand", settings, sidecar)
        with pytest.raises(wanted) as caught, blamed(phrases, Path("raw/video.mp4")):
            check_length(phrases.all[1], 36, 16, "OWLv2")
        assert "it has 36 tokens, OWLv2 reads 16" in caught.value.reason
        assert str(caught.value.culprit).startswith("raw/video" if wanted is BadSidecar else "phrase 'a very long name")


@pytest.mark.parametrize("phrase", ["hand", " hand ", "  "])
@pytest.mark.parametrize("by_sidecar", [True, False])
def test_an_object_that_has_the_phrase_for_hands_or_none_is_refused_and_not_passed_over(phrase: str, by_sidecar: bool) -> None:
    """Red before: nothing looked for it, and nothing said so."""
    known = (SidecarObject(label="glove", text=phrase),) if by_sidecar else ()
    operator = make(phrases=() if by_sidecar else (phrase,))
    with pytest.raises(
        BadSidecar if by_sidecar else BadSettings, match=r"(is the phrase for hands|is blank).*other than the phrase for hands"
    ):
        detect(operator, [noise(96, 160)], known)


def test_files_that_are_not_what_they_should_be(files: list[Path], tmp_path: Path) -> None:
    weights, config, vocabulary, merges = files
    broken = tmp_path / "broken"
    broken.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(WeightsUnreadable):
        _owlv2.load([broken, config, vocabulary, merges], CPU, "float32")
    broken.write_text(json.dumps({"model_type": "owlvit"}))
    with pytest.raises(WeightsMismatch, match="it describes a owlvit"):
        _owlv2.load([weights, broken, vocabulary, merges], CPU, "float32")
    other = json.loads(config.read_text())
    other["vision_config"]["num_hidden_layers"] = 3
    broken.write_text(json.dumps(other))
    with pytest.raises(WeightsMismatch, match="lacks 16 arrays") as caught:
        _owlv2.load([weights, broken, vocabulary, merges], CPU, "float32")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsUnreadable):
        _owlv2.load([weights, config, merges, merges], CPU, "float32")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[" * 100_000, "no configuration"),
        ({"vision_config": {"hidden_act": "nope"}}, "no network can be made"),
        ({"vision_config": {"patch_size": 0}}, "no network can be made"),
        ({"vision_config": {"hidden_size": 4_000_000}}, "describes a network of"),
        ({"text_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers = 1000000, more than"),
        ({"num_labels": 10**9}, "num_labels = 1000000000, more than"),
    ],
)
def test_a_configuration_of_no_network_takes_no_memory(files: list[Path], tmp_path: Path, said: str | dict[str, Any], reason: str) -> None:
    weights, config, vocabulary, merges = files
    hostile = tmp_path / "config.json"
    values = json.loads(config.read_text())
    if isinstance(said, dict):
        for key, value in said.items():
            values[key] = values[key] | value if isinstance(value, dict) and key in values else value
    hostile.write_text(said if isinstance(said, str) else json.dumps(values))
    with pytest.raises((WeightsUnreadable, WeightsMismatch), match=reason) as caught:
        _owlv2.load([weights, hostile, vocabulary, merges], CPU, "float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("words", "reason"), [({"a": 0, "!": 1}, "no tokenizer can be made"), ({"x": 10**6}, "it has token 1000000")])
def test_a_vocabulary_of_another_network_is_named(files: list[Path], tmp_path: Path, words: dict[str, int], reason: str) -> None:
    weights, config, vocabulary, _ = files
    other, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    other.write_text(json.dumps(words if "a" in words else json.loads(vocabulary.read_text()) | words))
    merges.write_text("#version: 0.2\n")
    with pytest.raises((WeightsUnreadable, WeightsMismatch), match=reason):
        _owlv2.load([weights, config, other, merges], CPU, "float32")


def test_what_is_missing_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="Run: egoworld models fetch owlv2"):
        make(random_weights_seed=None)
    monkeypatch.setattr("egoworld_ops.operators.extras.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install egoworld\[sam3\]"):
        make()
