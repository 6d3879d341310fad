"""The project's own VQ codec: every frame by itself becomes a grid of codes (VQ-VAE, van den Oord et al. 2017).

Encoder and decoder are those of the small VAE; between them a vector becomes the nearest of its codes, learnt
("ema") or fixed ("fsq"). `codecs/vq_training.py` trains it.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from magi_video.codecs import fsq
from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.base import register
from magi_video.codecs.config import VQConfig
from magi_video.codecs.discrete import DiscreteCodec, nearest_places
from magi_video.codecs.image_vae import split_frames
from magi_video.codecs.training import TrainedCodec
from magi_video.codecs.vq_training import VQTraining
from magi_video.models.configured import capture_config


@register
class VQCodec(TrainedCodec, DiscreteCodec):
    """A 2D codec of discrete latents, trained here.

    Args:
        quantizer, codebook_size, code_dim, l2_normalize, fsq_levels: see `VQConfig`.
        width, encoder_blocks, decoder_blocks: of the networks.
        latents_mean, latents_std: of the codes' numbers on a data set.
        codes_used, perplexity: of the codes on a data set (`measure_code_use`); None until measured.

    Raises:
        MagiError: a value that `VQConfig` refuses.
    """

    name = "vq"
    title = "our own discrete 2D codec, trained first on the same data"
    settings = "vq"
    trained = True
    temporal_factor = 1
    trained_by = VQTraining

    @capture_config
    def __init__(
        self,
        quantizer: Literal["ema", "fsq"] = "ema",
        codebook_size: int = 1024,
        code_dim: int = 8,
        l2_normalize: bool = False,
        fsq_levels: Sequence[int] = (8, 5, 5, 5),
        width: int = 64,
        encoder_blocks: Sequence[int] = (0, 1, 1, 1),
        decoder_blocks: Sequence[int] = (1, 1, 1, 0),
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        codes_used: float | None = None,
        perplexity: float | None = None,
    ) -> None:
        super().__init__()
        shape = VQConfig(  # which checks them
            quantizer=quantizer, codebook_size=codebook_size, code_dim=code_dim, l2_normalize=l2_normalize,
            fsq_levels=tuple(fsq_levels), width=width, encoder_blocks=tuple(encoder_blocks),
            decoder_blocks=tuple(decoder_blocks),
        )  # fmt: skip
        self.quantizer, self.codes, self.latent_channels = quantizer, shape.codes, shape.latent_channels
        self.spatial_factor, self.levels, self.l2_normalize = shape.spatial_factor, tuple(fsq_levels), l2_normalize
        self.vae = AutoencoderTiny(
            latent_channels=self.latent_channels,
            encoder_block_out_channels=(width,) * len(encoder_blocks),
            decoder_block_out_channels=(width,) * len(decoder_blocks),
            num_encoder_blocks=tuple(encoder_blocks),
            num_decoder_blocks=tuple(decoder_blocks),
        )
        if quantizer == "ema":
            self.register_buffer("vectors", torch.zeros(codebook_size, code_dim))
        self.set_statistics(
            [0.0] * self.latent_channels if latents_mean is None else latents_mean,
            [1.0] * self.latent_channels if latents_std is None else latents_std,
        )

    vectors: Tensor
    """Of "ema": the codes `[V, C]`."""

    @classmethod
    def of(cls, config: VQConfig) -> "VQCodec":
        """The untrained codec of a recipe."""
        names = ("quantizer", "codebook_size", "code_dim", "l2_normalize", "fsq_levels", "width", "encoder_blocks",
                 "decoder_blocks")  # fmt: skip
        return cls(**{name: getattr(config, name) for name in names})

    @override
    def raw_codebook(self) -> Tensor:
        if self.quantizer == "fsq":
            return fsq.codebook(self.levels).to(self._latents_mean.device)
        return self.vectors

    def vectors_of(self, frames_NCHW: Tensor) -> Tensor:
        """The encoder's vectors `[N, C, h, w]`, float32, before they become codes."""
        vectors_NCHW = self.vae.encode(frames_NCHW).float()
        return F.normalize(vectors_NCHW, dim=1) if self.quantizer == "ema" and self.l2_normalize else vectors_NCHW

    def quantize(self, vectors_NCHW: Tensor) -> Tensor:
        """The code `[N, h, w]` of each vector: the nearest, or the point of the grid that it is rounded to."""
        if self.quantizer == "fsq":
            vectors_NCHW = fsq.quantize(vectors_NCHW.movedim(1, -1), self.levels).movedim(-1, 1)
        return nearest_places(self.raw_codebook(), vectors_NCHW)

    @override
    def encode_raw(self, video_BTCHW: Tensor) -> Tensor:
        """Encode each frame to the vectors of its codes."""
        dtype, pixels = next(self.vae.parameters()).dtype, video_BTCHW.shape[-2] * video_BTCHW.shape[-1]
        parts = [self.quantize(self.vectors_of(part)) for part in split_frames(video_BTCHW, pixels, dtype)]
        return self.raw_codebook()[torch.cat(parts)].movedim(-1, 1).unflatten(0, video_BTCHW.shape[:2])

    @override
    def decode_raw(self, latents_BTCHW: Tensor) -> Tensor:
        """Decode each frame; a latent that is not a code's vector counts as the nearest code."""
        codebook, dtype = self.raw_codebook(), next(self.vae.parameters()).dtype
        codes = nearest_places(codebook, latents_BTCHW)
        exact_BTCHW = codebook[codes].movedim(-1, 2)
        pixels = latents_BTCHW.shape[-2] * latents_BTCHW.shape[-1] * self.spatial_factor**2
        parts = [self.vae.decode(part) for part in split_frames(exact_BTCHW, pixels, dtype)]
        return torch.cat(parts).contiguous().unflatten(0, latents_BTCHW.shape[:2])
