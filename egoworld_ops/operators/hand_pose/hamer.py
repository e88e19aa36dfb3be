"""Backend `hamer`: hands as MANO meshes by HaMeR (`_hamer_network.py`), placed before the true camera as `_mesh_backend.py` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from egoworld_ops.operators.hand_pose._mesh_backend import MeshBackend

if TYPE_CHECKING:
    from egoworld_ops.operators.hand_pose._mesh_model import Kind


class Backend(MeshBackend):
    """HaMeR (Pavlakos et al., CVPR 2024): 670,409,946 numbers."""

    version: ClassVar[str] = "2"
    backend: ClassVar[str] = "hamer"
    network_mb: ClassVar[int] = 2682

    @classmethod
    def kind(cls) -> Kind:
        """HaMeR's network."""
        from egoworld_ops.operators.hand_pose._mesh_model import HAMER

        return HAMER
