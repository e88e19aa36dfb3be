"""Which clips are handed out to judges, the worst that nobody has judged first."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

LENT_S = 600.0
"""For so long nobody else is handed a clip."""

Key = tuple[str, str, str]
"""run_id, video_id and clip_id."""


class Queue:
    """Which clips were handed out lately, so that two judges at once are not handed the same one. Of one server."""

    def __init__(self) -> None:
        self._lent: dict[Key, float] = {}
        self._alone = threading.Lock()

    def lend(self, keys: Sequence[Key]) -> int:
        """Hand out the first of these clips that is not lent, or the first of all; returns its place among them."""
        now = time.monotonic()
        with self._alone:
            self._lent = {key: at for key, at in self._lent.items() if now - at < LENT_S}
            free = next((n for n, key in enumerate(keys) if key not in self._lent), 0)
            self._lent[keys[free]] = now
            return free

    def give_back(self, key: Key) -> None:
        """Somebody judged it."""
        with self._alone:
            self._lent.pop(key, None)
