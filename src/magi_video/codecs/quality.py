"""How well a codec gives back what it was given."""

import math
from collections.abc import Iterable

import torch

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError


@torch.no_grad()
def reconstruction_psnr(codec: Codec, batches: Iterable[torch.Tensor], *, noise: float = 0.0) -> float:
    """Peak signal-to-noise ratio in dB, mean over frames, of decode(encode(video)) for video [B, T, 3, H, W].

    `noise` (in standard deviations) is added to the normalised latents first: how much a decoder forgives.
    """
    generator = torch.Generator().manual_seed(0)
    values: list[float] = []
    for batch_BTCHW in batches:
        video_BTCHW = batch_BTCHW.to(codec.device)
        latents_BTCHW = codec.encode(video_BTCHW)
        if noise:
            latents_BTCHW += noise * torch.randn(latents_BTCHW.shape, generator=generator).to(latents_BTCHW.device)
        error_N = (codec.decode(latents_BTCHW) - video_BTCHW).square().mean((2, 3, 4)).flatten()
        # Peak-to-peak range 2; an exact reconstruction counts as 100 dB instead of infinity.
        values += [min(100.0, 10 * math.log10(4 / error)) if error > 0 else 100.0 for error in error_N.tolist()]
    if not values:
        raise MagiError("no frames to measure the reconstruction on")
    return sum(values) / len(values)
