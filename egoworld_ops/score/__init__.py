"""How good the rows of a video are where the truth is known: the truth card. See `docs/scoring.md`."""
