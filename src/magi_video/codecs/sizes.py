"""Shapes of latents by arithmetic, the same for every codec. Imports no PyTorch."""

from dataclasses import dataclass
from typing import Any

from magi_video.errors import MagiError
from magi_video.recipe import Preset
from magi_video.registry import declared


class LatentSizes:
    """What a codec makes of the sizes of a video."""

    latent_channels: int
    """Channels C of a latent frame."""
    spatial_factor: int
    """Pixels per latent position, along height and along width."""
    temporal_factor: int
    """Pixel frames per latent frame; the first frame always stands alone (causal), 1 = frame by frame."""

    codes: int | None = None
    """How many codes a latent place chooses from; None where latents are continuous."""

    def num_latent_frames(self, num_frames: int) -> int:
        """Latent frames of `num_frames` pixel frames: 1 + (num_frames − 1) / temporal_factor, which must be whole."""
        if num_frames < 1 or (num_frames - 1) % self.temporal_factor:
            expected = f"1 + a multiple of {self.temporal_factor}" if self.temporal_factor > 1 else "at least 1"
            raise MagiError(f"{type(self).__name__} cannot encode {num_frames} frames; expected {expected}")
        return 1 + (num_frames - 1) // self.temporal_factor

    def covering_latent_frames(self, num_frames: int) -> int:
        """Fewest latent frames that decode to at least `num_frames` pixel frames."""
        return self.num_latent_frames(num_frames + (1 - num_frames) % self.temporal_factor)

    def num_pixel_frames(self, num_latent_frames: int) -> int:
        """Pixel frames that `num_latent_frames` latent frames decode to."""
        if num_latent_frames < 1:
            raise MagiError(f"cannot decode {num_latent_frames} latent frames; expected at least 1")
        return 1 + (num_latent_frames - 1) * self.temporal_factor

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a `height` × `width` picture; `MagiError` if they do not divide."""
        factor = self.spatial_factor
        if height < 1 or width < 1 or height % factor or width % factor:
            raise MagiError(
                f"{type(self).__name__} cannot encode {height}x{width} pixels; expected sides that {factor} divides"
            )
        return height // factor, width // factor


@dataclass(frozen=True)
class UntrainedCodec(LatentSizes):
    """Of a codec, what a transformer is built from.

    Attributes:
        latent_channels: channels of a latent frame.
        spatial_factor: pixels per latent position, along height and along width.
        temporal_factor: pixel frames per latent frame after the first.
        codes: of a discrete codec.
    """

    latent_channels: int
    spatial_factor: int
    temporal_factor: int
    codes: int | None = None


def describe_use(codes: int, share: float | None, perplexity: float | None) -> str:
    """How a data set uses a codec's codes, in words; share and perplexity as of `codecs.discrete.use_of`."""
    if share is None or perplexity is None:
        return f"{codes:,} codes, their use not measured"
    return f"{codes:,} codes, {share:.0%} of them used, perplexity {perplexity:,.0f}"


def untrained_codec(preset: Preset) -> UntrainedCodec:
    """The sizes of a preset's codec without building or fetching it.

    They follow from the codec's own settings where these name them; else they are what its class declares: SD's for an
    image VAE, those of Cosmos CV 4×8×8 for a video VAE (Wan 2.1's are the same), latent diffusion's VQ-f8 for a
    VQModel.
    """
    values, own = declared("codecs")[preset.codec.codec], preset.codec_settings

    def find(name: str) -> Any:
        return getattr(own, name, None) or values.get(name)

    return UntrainedCodec(find("latent_channels"), find("spatial_factor"), find("temporal_factor"), find("codes"))
