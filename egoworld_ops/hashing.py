"""The hash of a value: the same for equal values, wherever and whenever they are hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sha256_of(value: Mapping[str, Any]) -> str:
    """SHA-256, hex, of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()
