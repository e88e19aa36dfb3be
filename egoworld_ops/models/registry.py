"""The weights that egoworld knows. A backend names its entries in `weights(settings)`; what is written here of licences is no legal advice."""

from __future__ import annotations

from egoworld_ops.models.entries import Download, HubFile, Licence, Member, Packed, Supplied, Weight, Wheel

APACHE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "yes")
HAMER = Licence("MIT", "https://github.com/geopavlakos/hamer/blob/main/LICENSE.md", "ask")
"""The code is MIT's; the network was trained on data for research, and what it gives are parameters of MANO."""
WILOR = Licence("CC-BY-NC-ND-4.0", "https://github.com/rolpotamias/WiLoR/blob/main/license.txt", "no")
HAWOR = Licence("CC-BY-NC-ND-4.0", "https://github.com/ThunderVVV/HaWoR/blob/main/license.txt", "no")
MANO = Licence("MANO", "https://mano.is.tue.mpg.de/license.html", "no")
MOGE = Licence("MIT", "https://github.com/microsoft/MoGe/blob/main/LICENSE", "yes")
NVIDIA = Licence(
    "NVIDIA Open Model License", "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/", "yes"
)
SAM = Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", "yes")
"""Commercial use is allowed, military use is not; pass the licence on, and name it in publications."""

_MEDIAPIPE = Wheel(
    "mediapipe==0.10.21",
    "manylinux_2_28_x86_64",
    "311",
    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
)
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_OPENMMLAB = "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk"
_FOUNDATIONPOSE = "18d8309afc9790cddc03a1d50bc69954dc058693"


def _hands(name: str, n_bytes: int, sha256: str) -> Weight:
    member = Member(_MEDIAPIPE, f"mediapipe/modules/{name.rpartition('_')[0]}/{name}.tflite")
    return Weight(name, f"{name}.tflite", sha256, n_bytes, APACHE, member)


def _sam2(size: str, n_bytes: int, sha256: str) -> Weight:
    name = f"sam2.1_hiera_{size}"
    return Weight(name, f"{name}.pt", sha256, n_bytes, APACHE, Download(f"{_SAM2}/{name}.pt"))


def _rtm(name: str, file: str, folder: str, n_bytes: int | None, sha256: str) -> Weight:
    """The SHA-256 are those that several projects have pinned independently of each other; OpenMMLab publishes none."""
    member = Packed(f"{_OPENMMLAB}/{file}.zip", f"20230831/{folder}/{file}/end2end.onnx")
    return Weight(name, f"{name}.onnx", sha256, n_bytes, APACHE, member)


def _mano(side: str, n_bytes: int, sha256: str) -> Weight:
    page = "https://mano.is.tue.mpg.de"
    steps = f"Register at {page}, accept the licence ({MANO.url}), download `Models & Code` (mano_v1_2.zip) and unpack it"
    return Weight(f"mano_{side}", f"MANO_{side.upper()}.pkl", sha256, n_bytes, MANO, Supplied(page, steps), converted=True)


def _moge2(size: str, least_mb: int, most_mb: int) -> Weight:
    """Both sizes have the same names. Their sizes tell them apart: 331 and 35 million numbers, of 16 or 32 bits."""
    source = HubFile(f"Ruicheng/moge-2-{size}-normal-onnx", "model.onnx", "main")
    names, sizes = dict.fromkeys(("points", "mask", "metric_scale")), (least_mb * 1_000_000, most_mb * 1_000_000)
    return Weight(f"moge2_{size}", f"moge2_{size}.onnx", None, None, MOGE, source, holds=names, sizes=sizes)


def _foundationpose(part: str, outputs: int) -> Weight:
    """Names of results differ between the publishers of these networks, their number does not."""
    return Weight(
        f"foundationpose_{part.removesuffix('_net')}",
        f"foundationpose_{part}.onnx",
        None,
        None,
        NVIDIA,
        HubFile("nvidia/foundationpose", f"{part}.onnx", _FOUNDATIONPOSE),
        holds={"input": None},
        outputs=outputs,
    )


def _sam3(name: str, path: str, holds: str, model_type: str = "") -> Weight:
    filename = "sam3.safetensors" if name == "sam3" else f"{name}.json"
    source = HubFile("facebook/sam3", path, "main", gated=True)
    return Weight(name, filename, None, None, SAM, source, holds={holds: None}, model_type=model_type)


def _owlv2(name: str, path: str, holds: str, shape: tuple[int, ...] | None = None, model_type: str = "") -> Weight:
    source = HubFile("google/owlv2-base-patch16-ensemble", path, "main")
    return Weight(name, f"{name}{path[path.rindex('.') :]}", None, None, APACHE, source, holds={holds: shape}, model_type=model_type)


REGISTRY: dict[str, Weight] = {
    w.name: w
    for w in (
        _hands("palm_detection_full", 2339846, "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"),
        _hands("palm_detection_lite", 1985440, "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18"),
        _hands("hand_landmark_full", 5478917, "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
        _hands("hand_landmark_lite", 2071597, "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6"),
        _sam2("tiny", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
        _sam2("small", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
        _sam2("base_plus", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
        _sam2("large", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
        Weight(
            "hamer",
            "hamer.ckpt",
            None,
            None,
            HAMER,
            HubFile("spaces/geopavlakos/HaMeR", "_DATA/hamer_ckpts/checkpoints/hamer.ckpt", "main"),
            converted=True,
            holds={"backbone.patch_embed.proj.weight": (1280, 3, 16, 16)},
        ),
        Weight(
            "wilor",
            "wilor_final.ckpt",
            "3e97aafc7dd08d883a4cc5a027df61fdb6fda6136dbd1319405413862ada6bb2",
            2564989533,
            WILOR,
            HubFile("spaces/rolpotamias/WiLoR", "pretrained_models/wilor_final.ckpt", "99fe3d7acff8104ecca1055df7467709506c2fa6"),
            converted=True,
        ),
        Weight(
            "hawor",
            "hawor.ckpt",
            None,
            None,
            HAWOR,
            HubFile("ThunderVVV/HaWoR", "hawor/checkpoints/hawor.ckpt", "main"),
            converted=True,
            holds={"st_module.l1.weight": (512, 1283), "backbone.patch_embed.proj.weight": (1280, 3, 16, 16)},
        ),
        _mano("right", 3821356, "45d60aa3b27ef9107a7afd4e00808f307fd91111e1cfa35afd5c4a62de264767"),
        _mano("left", 3821391, "c4022f7083f2ca7c78b2b3d595abbab52debd32b09d372b16923a801f0ea6a30"),
        _foundationpose("refiner_net", 2),
        _foundationpose("score_net", 1),
        _sam3("sam3", "model.safetensors", "detector_model.vision_encoder.backbone.embeddings.patch_embeddings.projection.weight"),
        _sam3("sam3_config", "config.json", "model_type", "sam3_video"),
        _sam3("sam3_tokenizer", "tokenizer.json", "model"),
        _rtm(
            "rtmdet_hand",
            "rtmdet_nano_8xb32-300e_hand-267f9c8f",
            "rtmdet_onnx",
            4010667,
            "568d3ea97a5b142488366b67e036b6a5cb0a1fef9087a710cb8e66b6979fbac2",
        ),
        _rtm(
            "rtmpose_hand",
            "rtmpose-m_simcc-hand5_pt-aic-coco_210e-256x256-74fb594_20230320",
            "rtmpose_onnx",
            None,
            "39e858936bca0f94c09847d4e70b68a51d6c0adac61f36b457fcadb54621cd29",
        ),
        _moge2("vitl", 600, 2000),
        _moge2("vits", 50, 300),
        Weight(
            "da3metric_large",
            "da3metric_large.safetensors",
            None,
            None,
            APACHE,
            HubFile("depth-anything/DA3METRIC-LARGE", "model.safetensors", "main"),
            holds={"model.backbone.pretrained.patch_embed.proj.weight": (1024, 3, 14, 14)},
        ),
        _owlv2("owlv2", "model.safetensors", "owlv2.vision_model.embeddings.patch_embedding.weight", (768, 3, 16, 16)),
        _owlv2("owlv2_config", "config.json", "model_type", model_type="owlv2"),
        _owlv2("owlv2_vocabulary", "vocab.json", "<|endoftext|>"),
        _owlv2("owlv2_merges", "merges.txt", "#version:"),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "mediapipe-hands": ("palm_detection_full", "palm_detection_lite", "hand_landmark_full", "hand_landmark_lite"),
    "owlv2": ("owlv2", "owlv2_config", "owlv2_vocabulary", "owlv2_merges"),
    "sam3": ("sam3", "sam3_config", "sam3_tokenizer"),
    "rtmpose-hands": ("rtmdet_hand", "rtmpose_hand", "hand_landmark_full"),
    "foundationpose": ("foundationpose_refiner", "foundationpose_score"),
}
"""Names that stand for several files."""
