"""diffusers' `VQModel` (the VQGAN of latent diffusion) as a codec: a pretrained one, from a folder or the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from magi_video.codecs.base import register
from magi_video.codecs.discrete import DiscreteCodec, nearest_places
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.sizes import UntrainedCodec
from magi_video.errors import MagiError
from magi_video.files.weights import read_config
from magi_video.models.configured import capture_config
from magi_video.settings import MAX_SIZE


@register
class VQModelCodec(DiscreteCodec, ImageVAECodec):
    """A diffusers `VQModel`; its latents are its codes' vectors, of `vq_embed_dim` numbers.

    Args:
        vae_class, vae_config, latents_mean, latents_std: see `VAECodec`.
        codes_used, perplexity: of the codes on a data set (`measure_code_use`); None until measured.
    """

    name = "vq_model"
    title = "a diffusers VQModel: discrete"
    latent_channels = 4
    spatial_factor = 8
    temporal_factor = 1
    codes = 16_384

    vae_modules: ClassVar[Mapping[str, str]] = MappingProxyType({"VQModel": "diffusers.models.autoencoders.vq_model"})

    @capture_config
    def __init__(
        self,
        vae_class: str,
        vae_config: Mapping[str, Any],
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        codes_used: float | None = None,
        perplexity: float | None = None,
    ) -> None:
        super().__init__(vae_class, vae_config, latents_mean, latents_std)
        if self.vae.config.lookup_from_codebook:
            raise MagiError("a VQModel with lookup_from_codebook decodes code numbers, not latents; set it to false")
        self.codes = check_number_of_codes(self.vae.config.num_vq_embeddings)

    @staticmethod
    @override
    def factors(vae_class: str, settings: Any) -> tuple[int, int, int, int]:
        channels = settings.vq_embed_dim or settings.latent_channels
        return channels, 2 ** (len(settings.block_out_channels) - 1), 1, 3

    @classmethod
    @override
    def sizes_of(cls, name: str, subfolder: str | None = None) -> UntrainedCodec:
        sizes = super().sizes_of(name, subfolder)
        config = read_config(name, **({} if subfolder is None else {"subfolder": subfolder}))
        return replace(sizes, codes=check_number_of_codes(config.get("num_vq_embeddings", 256)))

    @override
    def claimed_statistics(self) -> tuple[list[float], list[float]]:
        """Its one factor for all numbers."""
        return [0.0] * self.latent_channels, [1 / self.vae.config.scaling_factor] * self.latent_channels

    @override
    def raw_codebook(self) -> Tensor:
        return self.vae.quantize.embedding.weight

    @override
    def _encode_frames(self, frames_NCHW: Tensor) -> Tensor:
        codebook = self.raw_codebook()
        codes_NHW = nearest_places(codebook, self.vae.encode(frames_NCHW).latents)
        return codebook[codes_NHW].movedim(-1, 1)


def check_number_of_codes(codes: Any) -> int:
    """The number of a VQModel's codes; a `MagiError` if no model can have so many."""
    if type(codes) is not int or not 2 <= codes <= MAX_SIZE:
        raise MagiError(f"a VQModel of {str(codes)[:40]} codes; expected 2 to {MAX_SIZE}")
    return codes
