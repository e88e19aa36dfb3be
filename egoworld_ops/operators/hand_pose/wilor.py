"""Backend `wilor`: hands as MANO meshes by WiLoR (`_wilor_network.py`), placed before the true camera as `_mesh_backend.py` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from egoworld_ops.operators.hand_pose._mesh_backend import MeshBackend

if TYPE_CHECKING:
    from egoworld_ops.operators.hand_pose._mesh_model import Kind


class Backend(MeshBackend):
    """WiLoR (Potamias et al., CVPR 2025), without its detector: 639,282,637 numbers."""

    version: ClassVar[str] = "2"
    backend: ClassVar[str] = "wilor"
    network_mb: ClassVar[int] = 2557

    @classmethod
    def kind(cls) -> Kind:
        """WiLoR's network."""
        from egoworld_ops.operators.hand_pose._mesh_model import WILOR

        return WILOR
