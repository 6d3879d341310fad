"""Settings of the small image VAE. Standard library alone, so that presets can be read without importing torch."""

from dataclasses import dataclass

from magi_video.fast.precision import Precision


@dataclass(frozen=True)
class SmallVAEConfig:
    """Architecture and training recipe of the project's own image VAE (diffusers' `AutoencoderTiny`).

    One level per entry of `encoder_blocks`; every level but the first halves the picture, so four levels give an
    8× smaller latent. `AutoencoderTiny` has one width throughout: residual blocks are cheap where pixels are few,
    hence no block at full size.
    """

    latent_channels: int = 8
    width: int = 64
    """Channels of every convolution."""
    encoder_blocks: tuple[int, ...] = (0, 1, 1, 1)
    """Residual blocks of each level, from full size to the latent's."""
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 0)
    """Residual blocks of each level, from the latent's size to full size; as many levels as the encoder."""

    steps: int = 4000
    batch_size: int = 16
    """Pictures in a step; whoever supplies the batches reads it."""
    learning_rate: float = 1.5e-3
    """Peak rate: linear warm-up, then a cosine to 1 % of it."""
    warmup_steps: int = 100
    weight_decay: float = 0.01
    gradient_clip: float = 0.5
    """Largest norm of the whole gradient."""

    latent_noise: float = 0.2
    """Largest Gaussian noise added to the latents, in standard deviations of each channel; the level is uniform
    from 0 to this per picture. It makes the decoder forgive small errors of a generated latent."""
    latent_penalty: float = 1e-4
    """Weight of the mean squared latent: keeps latents small (the decoder squashes them beyond ±3)."""
    edge_weight: float = 0.1
    """Weight of the squared error of horizontal and vertical differences: crisper edges."""

    precision: Precision = "auto"
    """Of the convolutions in training; weights, optimizer, loss and all later use stay float32. "auto": as the model's
    training, if that has a precision, or the quicker one on this machine."""
    checkpoint_every: int = 250
    """Steps between two checkpoints of an unfinished training."""
    seed: int = 0

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, along height and along width."""
        return int(2 ** (len(self.encoder_blocks) - 1))
