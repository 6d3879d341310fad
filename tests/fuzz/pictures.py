"""Pictures and videos to damage."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES = 6


def pictures(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def encode(path: Path, codec: str, pixel_format: str = "yuv420p", count: int = FRAMES, pixel: int = 1) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        stream.codec_context.sample_aspect_ratio = Fraction(pixel)
        for picture in pictures(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
