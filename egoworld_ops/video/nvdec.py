"""A GPU's own decoder (NVDEC), through libav: it takes the same packets as the CPU's, and gives its frames in the CPU's formats.

Whether they are the same frames is told by the packet index, which has a checksum of each as the CPU decoded it (`by_index.frames_by_index`).
"""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.codec.hwaccel import HWAccel
from av.video.reformatter import VideoReformatter

from egoworld_ops.video.containers import prepare_decoder
from egoworld_ops.video.decoder import DecoderSetup
from egoworld_ops.video.packet_index import IndexDiffers

_NATIVE = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
"""libav's own decoder of a codec, which is the one that hands packets to a GPU, by the one that decodes on the CPU."""
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le", "nv16": "yuv422p"}
"""The CPU's formats of the same samples, by the GPU's."""


def opened(setup: DecoderSetup) -> av.VideoCodecContext:
    """A decoder of this stream on the GPU that this process sees first.

    Raises:
        IndexDiffers: there is no such GPU, or it does not decode this codec.
    """
    try:
        accelerated = HWAccel("cuda", allow_software_fallback=False, options={"primary_ctx": "1"})
        context = setup.context(_NATIVE.get(setup.name, setup.name), accelerated)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise IndexDiffers(f"CUDA decodes nothing here ({error})") from error
    if not context.is_hwaccel:
        raise IndexDiffers(f"CUDA does not decode {setup.name}")
    prepare_decoder(context, 1)
    return context


class GpuDecoder:
    """Decodes the packets of one stream on the GPU; frames come in system memory.

    Raises:
        IndexDiffers: as `opened`.
    """

    def __init__(self, setup: DecoderSetup) -> None:
        self._pix_fmt = setup.noted.get("pix_fmt")
        self._reformatter = VideoReformatter()
        self._context = opened(setup)

    def decode(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        """The frames that a packet, or the end of the stream, brings out."""
        for frame in self._context.decode(packet):
            yield self.planar(frame)

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame with the same samples in the format that the CPU's decoder gives."""
        name = self._pix_fmt or _PLANAR.get(frame.format.name, frame.format.name)
        if name == frame.format.name:
            return frame
        planar = self._reformatter.reformat(frame, format=name, threads=1)
        planar.pts, planar.colorspace, planar.color_range = frame.pts, frame.colorspace, frame.color_range
        return planar
