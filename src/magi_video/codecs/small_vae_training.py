"""What trains the small image VAE: its losses, and the noise that makes its decoder forgive."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.config import SmallVAEConfig
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.statistics import measure_statistics
from magi_video.codecs.training import CodecTraining, reconstruction_errors
from magi_video.errors import MagiError


def build_small_vae(config: SmallVAEConfig) -> AutoencoderTiny:
    """Build the untrained VAE; its weights depend on `config.seed` alone."""
    levels = len(config.encoder_blocks)
    if levels < 1 or len(config.decoder_blocks) != levels:
        raise MagiError(
            f"encoder_blocks and decoder_blocks must have as many levels; got {levels} and {len(config.decoder_blocks)}"
        )
    # Weights are drawn from torch's global generator: seed a fork of it and leave the caller's untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AutoencoderTiny(
            latent_channels=config.latent_channels,
            encoder_block_out_channels=(config.width,) * levels,
            decoder_block_out_channels=(config.width,) * levels,
            num_encoder_blocks=config.encoder_blocks,
            num_decoder_blocks=config.decoder_blocks,
        )


class SmallVAETraining(CodecTraining[SmallVAEConfig]):
    """Trains an `AutoencoderTiny` on single pictures; arguments as of `CodecTraining`."""

    name = "VAE"

    def __init__(self, config: SmallVAEConfig, device: str | torch.device = "cpu") -> None:
        super().__init__(config, device)
        self.network = build_small_vae(config).to(device)

    @override
    def losses(self, pictures_BCHW: Tensor, step: int) -> dict[str, Tensor]:
        """Squared error, squared error of differences, mean squared latent; and "loss", their weighted sum."""
        vae: Any = self.network
        config = self.config
        with self.autocast():
            latents_BCHW = vae.encode(pictures_BCHW.contiguous(memory_format=torch.channels_last)).float()
            # Noise is measured in deviations of the latents themselves: growing them does not drown it.
            std_C11 = latents_BCHW.detach().std((0, 2, 3), keepdim=True)
            generator = self.generator(step)
            level_B111 = torch.rand((len(latents_BCHW), 1, 1, 1), generator=generator) * config.latent_noise
            noise_BCHW = level_B111 * torch.randn(latents_BCHW.shape, generator=generator)
            decoded_BCHW = vae.decode(latents_BCHW + std_C11 * noise_BCHW.to(self.device)).float()
        mse, edges = reconstruction_errors(decoded_BCHW, pictures_BCHW)
        size = latents_BCHW.square().mean()
        loss = mse + config.edge_weight * edges + config.latent_penalty * size
        return {"loss": loss, "mse": mse, "edges": edges, "latents": size}

    @override
    def finish(self, measured: Sequence[Tensor]) -> tuple[ImageVAECodec, dict[str, Any]]:
        codec = ImageVAECodec.from_module(self.network)
        codec.set_statistics(*measure_statistics(codec, measured))
        return codec, {}
