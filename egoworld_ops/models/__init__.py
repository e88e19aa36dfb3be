"""The registry of model weights: what they are, where they come from, under which licence; fetch and verify. No model code belongs here.

Every file has a SHA-256, its publisher's or the one it had when it first came (`lock.py`), and `path` refuses a file with another one. Files lie
in `$EGOWORLD_WEIGHTS`, else in `.weights` of the checkout, else in the user's cache folder.

    egoworld models list
    egoworld models fetch mediapipe-hands
    egoworld models register sam2.1_hiera_tiny /media/usb/sam2.1_hiera_tiny.pt
"""

from egoworld_ops.models.entries import Download, HubFile, Licence, Member, Packed, Supplied, Weight, Wheel
from egoworld_ops.models.fetching import fetch, register
from egoworld_ops.models.listing import licences, listed
from egoworld_ops.models.registry import GROUPS, REGISTRY
from egoworld_ops.models.store import folder, lying_in, named, path, pinned, sha256, state, verify, weight

__all__ = [
    "GROUPS",
    "REGISTRY",
    "Download",
    "HubFile",
    "Licence",
    "Member",
    "Packed",
    "Supplied",
    "Weight",
    "Wheel",
    "fetch",
    "folder",
    "licences",
    "listed",
    "lying_in",
    "named",
    "path",
    "pinned",
    "register",
    "sha256",
    "state",
    "verify",
    "weight",
]
