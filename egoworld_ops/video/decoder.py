"""Sets up a decoder as its container would, from recorded parameters: no container is opened and no header is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import av
from av.codec.hwaccel import HWAccel

from egoworld_ops.video.containers import prepare_decoder

_NOTED = (
    "codec_tag",
    "width",
    "height",
    "pix_fmt",
    "color_range",
    "color_primaries",
    "color_trc",
    "colorspace",
    "bits_per_coded_sample",
    "reorder_depth",
)
CHROMA_LOCATIONS = ("", "left", "center", "topleft", "top", "bottomleft", "bottom")
"""Chroma sample locations that libav accepts; empty if the container states none. PyAV does not expose a decoder's own."""


@dataclass(frozen=True, slots=True)
class DecoderSetup:
    """What a container passes to its stream's decoder before the first packet.

    Args:
        name: libav's name of the decoder.
        extradata: the codec's own header, empty where there is none.
        noted: fields of the codec context, by PyAV's names.
        chroma_location: one of CHROMA_LOCATIONS.
    """

    name: str
    extradata: bytes
    noted: Mapping[str, Any]
    chroma_location: str = ""

    @classmethod
    def of(cls, context: av.VideoCodecContext) -> DecoderSetup:
        """The setup of a decoder that has not seen a packet yet."""
        return cls(context.name, context.extradata or b"", {field: getattr(context, field) for field in _NOTED})

    def with_chroma(self, location: str) -> DecoderSetup:
        """The same setup with another chroma location."""
        return replace(self, chroma_location=location)

    def context(self, name: str, hwaccel: HWAccel | None = None) -> av.VideoCodecContext:
        """The context of a decoder by its name, on an accelerator where one is given; neither limits nor threads are set."""
        context = av.CodecContext.create(name, "r", hwaccel)
        assert isinstance(context, av.VideoCodecContext)
        for field, value in self.noted.items():
            if value is not None and not (hwaccel and field == "pix_fmt"):  # an accelerator has its own
                setattr(context, field, value)
        if self.extradata:
            context.extradata = self.extradata
        return context

    def decoder(self, threads: int) -> av.VideoCodecContext:
        """A new decoder.

        Args:
            threads: as for `open_media`.
        """
        context = self.context(self.name)
        prepare_decoder(context, threads)
        if self.chroma_location:
            context.options = {**context.options, "chroma_sample_location": self.chroma_location}
        return context
