"""TAESD's network (github.com/madebyollin/taesd), the image VAE that is small enough to be trained here.

Its arguments, the names of its weights and its results are those of diffusers' `AutoencoderTiny`: folders of either are
folders of the other. It stands here because importing diffusers' takes longer than importing PyTorch, and the shipped
models have this VAE.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from magi_video.models.configured import Network, capture_config

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}
UPSAMPLINGS = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
"""Modes of `torch.nn.Upsample` for pictures."""


class AutoencoderTiny(Network):
    """Pictures [B, in_channels, H, W] in [−1, 1] to latents [B, latent_channels, h, w] and back; not variational.

    Args:
        in_channels, out_channels: of pictures.
        encoder_block_out_channels, decoder_block_out_channels: channels of each level, one level after another.
        act_fn: of the residual blocks: "relu", "silu" (or "swish"), "mish", "gelu".
        upsample_fn: one of `UPSAMPLINGS`.
        latent_channels: of latents.
        upsampling_scaling_factor: of the decoder, from level to level; the encoder halves.
        num_encoder_blocks, num_decoder_blocks: residual blocks of each level.
        latent_magnitude, latent_shift, force_upcast, scaling_factor, shift_factor: kept in the config for others.

    Raises:
        ValueError: the numbers of levels differ, or there is no such activation or upsampling.
    """

    @capture_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        encoder_block_out_channels: Sequence[int] = (64, 64, 64, 64),
        decoder_block_out_channels: Sequence[int] = (64, 64, 64, 64),
        act_fn: str = "relu",
        upsample_fn: str = "nearest",
        latent_channels: int = 4,
        upsampling_scaling_factor: int = 2,
        num_encoder_blocks: Sequence[int] = (1, 3, 3, 3),
        num_decoder_blocks: Sequence[int] = (3, 3, 3, 1),
        latent_magnitude: float = 3,
        latent_shift: float = 0.5,
        force_upcast: bool = False,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        if len(encoder_block_out_channels) != len(num_encoder_blocks):
            raise ValueError("encoder_block_out_channels and num_encoder_blocks differ in length")
        if len(decoder_block_out_channels) != len(num_decoder_blocks):
            raise ValueError("decoder_block_out_channels and num_decoder_blocks differ in length")
        for name, value, known in (("act_fn", act_fn, ACTIVATIONS), ("upsample_fn", upsample_fn, UPSAMPLINGS)):
            if value not in tuple(known):
                raise ValueError(f"{name} {str(value)[:40]!r}; expected one of {', '.join(known)}")
        self.encoder = EncoderTiny(in_channels, latent_channels, num_encoder_blocks, encoder_block_out_channels, act_fn)
        self.decoder = DecoderTiny(
            latent_channels, out_channels, num_decoder_blocks, decoder_block_out_channels,
            upsampling_scaling_factor, act_fn, upsample_fn,
        )  # fmt: skip

    def encode(self, pictures_BCHW: Tensor) -> Tensor:
        """Pictures to latents."""
        return self.encoder(pictures_BCHW)

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Latents to pictures."""
        return self.decoder(latents_BCHW)


class EncoderTiny(nn.Module):
    """Levels of residual blocks; every level but the first begins by halving the picture."""

    def __init__(
        self, in_channels: int, latent_channels: int, blocks: Sequence[int], channels: Sequence[int], act_fn: str
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (count, width) in enumerate(zip(blocks, channels, strict=True)):
            if level == 0:
                layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            else:
                layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
            layers += [ResidualBlock(width, act_fn) for _ in range(count)]
        layers.append(nn.Conv2d(channels[-1], latent_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures_BCHW: Tensor) -> Tensor:
        """Pictures in [−1, 1] to latents."""
        return self.layers(pictures_BCHW.add(1).div(2))  # TAESD's pictures lie in [0, 1]


class DecoderTiny(nn.Module):
    """Levels of residual blocks; every level but the last ends by enlarging the picture."""

    def __init__(
        self,
        latent_channels: int,
        out_channels: int,
        blocks: Sequence[int],
        channels: Sequence[int],
        scale: int,
        act_fn: str,
        upsample_fn: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, channels[0], 3, padding=1), ACTIVATIONS[act_fn]()]
        for level, (count, width) in enumerate(zip(blocks, channels, strict=True), 1):
            layers += [ResidualBlock(width, act_fn) for _ in range(count)]
            if level < len(blocks):
                layers.append(nn.Upsample(scale_factor=scale, mode=upsample_fn))
                layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            else:
                layers.append(nn.Conv2d(width, out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        """Latents, softly limited to ±3, to pictures in [−1, 1]."""
        return self.layers(torch.tanh(latents_BCHW / 3) * 3).mul(2).sub(1)


class ResidualBlock(nn.Module):
    """Three convolutions beside the identity."""

    def __init__(self, width: int, act_fn: str) -> None:
        super().__init__()
        activation = ACTIVATIONS[act_fn]
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            activation(),
            nn.Conv2d(width, width, 3, padding=1),
            activation(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.fuse = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape as `x_BCHW`."""
        return self.fuse(self.conv(x_BCHW) + x_BCHW)
