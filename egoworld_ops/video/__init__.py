"""Raw video in: containers, probing, decoding, scenes, the manifest, and what a person says of a video."""
