"""Settings of the codecs that are trained here. Does not import PyTorch."""

from math import prod
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.precision import Precision, modern
from magi_video.settings import MAX_SIZE, Items, settings

Blocks = Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Items, Field(min_length=1, max_length=8)]
"""Residual blocks of each level."""


@settings
class ImageCodecConfig:
    """Architecture and training of a codec of the project's own: the encoder and decoder of TAESD's
    network, diffusers' `AutoencoderTiny`, with what a subclass puts between them.

    One level per entry of `encoder_blocks`; every level but the first halves the picture, so four levels give an
    8× smaller latent. `AutoencoderTiny` has one width throughout: residual blocks are cheap where pixels are few, so
    there is none at full size.
    """

    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of every convolution."""
    encoder_blocks: Blocks = (0, 1, 1, 1)
    """Residual blocks of each level, from full size to the latent's."""
    decoder_blocks: Blocks = (1, 1, 1, 0)
    """Residual blocks of each level, from the latent's size to full size; as many levels as the encoder."""

    steps: Annotated[int, Field(ge=0, le=10**9)] = 4000
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 16
    """Pictures in a step; read by the code that supplies the batches."""
    learning_rate: Annotated[float, Field(ge=0)] = 1.5e-3
    """Peak rate: linear warm-up, then a cosine to 1 % of it."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_clip: Annotated[float, Field(ge=0)] = 0.5
    """Largest norm of the whole gradient."""
    edge_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the squared error of horizontal and vertical differences: crisper edges."""

    precision: Annotated[Precision, BeforeValidator(modern)] = "auto"
    """Of the convolutions in training; weights, optimizer, loss and all later use stay float32. "auto": as the model's
    training, if that has a precision, or the quicker one on this machine."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 250
    """Steps between two checkpoints of an unfinished training."""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            levels = f"{len(self.encoder_blocks)} and {len(self.decoder_blocks)}"
            raise MagiError(f"encoder_blocks and decoder_blocks must have as many levels, got {levels}")

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent place, along height and along width."""
        return 2 ** (len(self.encoder_blocks) - 1)


@settings
class SmallVAEConfig(ImageCodecConfig):
    """The small image VAE: continuous latents."""

    latent_channels: Annotated[int, Field(ge=1, le=1024)] = 8
    latent_noise: Annotated[float, Field(ge=0)] = 0.2
    """Largest Gaussian noise added to the latents, in standard deviations of each channel; the level is uniform
    from 0 to this per picture. It makes the decoder forgive small errors of a generated latent."""
    latent_penalty: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the mean squared latent: keeps latents small (the decoder squashes them beyond ±3)."""


@settings
class VQConfig(ImageCodecConfig):
    """The VQ codec: the vector at each latent place is one of finitely many codes (van den Oord et al. 2017)."""

    quantizer: Literal["ema", "fsq"] = "ema"
    """"ema": the codes are learnt, as moving averages of the vectors that fall to each (VideoGPT); "fsq": they are a
    fixed grid, and nothing is learnt but the encoder (finite scalar quantisation, Mentzer et al. 2023)."""
    codebook_size: Annotated[int, Field(ge=2, le=2**16)] = 1024
    """Codes of "ema"; 2048 in VideoGPT, 1024 in MAGVIT and Genie."""
    code_dim: Annotated[int, Field(ge=1, le=1024)] = 8
    """Numbers of a code, of "ema"; 256 in VideoGPT and MAGVIT, 32 in Genie, 8 in OmniTokenizer."""
    l2_normalize: bool = False
    """Keep vectors and codes of "ema" at unit length, so that the nearest code is the one of the largest cosine."""
    ema_decay: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Of the codes' moving averages, a step."""
    commitment: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the mean squared distance between a vector and its code, which pulls the encoder to its codes."""
    restart_every: Annotated[int, Field(ge=0)] = 100
    """Steps after which codes that none of them used begin again, at vectors of the last batch; 0: never."""
    fsq_levels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Items, Field(min_length=1)] = (8, 5, 5, 5)
    """Values of each number of a code, of "fsq"; their product is the number of codes."""

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if prod(self.fsq_levels) > MAX_SIZE:
            raise MagiError(f"fsq_levels must have a product of at most {MAX_SIZE}, got {self.fsq_levels}")

    @property
    def latent_channels(self) -> int:
        """Numbers of a code."""
        return len(self.fsq_levels) if self.quantizer == "fsq" else self.code_dim

    @property
    def codes(self) -> int:
        """V, of either quantiser."""
        return prod(self.fsq_levels) if self.quantizer == "fsq" else self.codebook_size
