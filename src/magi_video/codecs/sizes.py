"""Shapes of latents by arithmetic, the same for every codec. Standard library alone."""

from magi_video.errors import MagiError


class LatentSizes:
    """What a codec makes of the sizes of a video."""

    latent_channels: int
    """Channels C of a latent frame."""
    spatial_factor: int
    """Pixels per latent position, along height and along width."""
    temporal_factor: int
    """Pixel frames per latent frame; the first frame always stands alone (causal), 1 = frame by frame."""

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
