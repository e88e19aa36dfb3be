"""Reading raw video: containers, probing, decoding, scenes, the manifest and sidecars."""
