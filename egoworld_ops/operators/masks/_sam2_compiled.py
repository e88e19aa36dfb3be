"""SAM 2.1's image encoder through `torch.compile`, compiled and warmed up before the first clip. Everything else of the model stays as it is.

The encoder takes most of the time, and its input always has one shape if a batch that is not full is filled up (`StreamingPredictor.encode`):
then nothing is compiled while clips wait. A worker on the same machine finds what another one compiled in Inductor's cache.
"""

from __future__ import annotations

import torch

from egoworld_ops.errors import BadSettings, printable
from egoworld_ops.operators.masks._sam2_stream import StreamingPredictor

_SAID = 300
"""Characters of torch's error that are shown."""


def compile_encoder(predictor: StreamingPredictor, image_size: int, micro_batch: int) -> None:
    """Compile the image encoder for batches of `micro_batch` pictures, as it will be called: on its device, under the caller's autocast.

    Raises:
        BadSettings: nothing can be compiled here.
    """
    encoder = predictor.image_encoder
    pictures = dict.fromkeys(range(micro_batch), torch.zeros(3, image_size, image_size))

    def encode() -> None:
        predictor.encode(predictor.start(micro_batch, image_size, image_size), pictures)

    encode()  # as it is: it remembers the codes of positions, and what is compiled before that would be compiled again
    encoder.forward = torch.compile(encoder.forward, fullgraph=True, dynamic=False)
    try:
        encode()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = f"is true, and torch.compile fails here: {printable(' '.join(str(error).split()), _SAID)}"
        cure = "Install a C++ compiler (for a CPU) or the Triton that fits torch (for a GPU); or set it to false"
        raise BadSettings("setting stages.masks.sam2.compile", reason, cure) from error
