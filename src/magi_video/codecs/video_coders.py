"""What each of diffusers' causal video VAEs needs to be coded with: its factors, and a decoder that remembers.

A decoder that meets a video piece by piece must find, at the start of every piece, what its causal convolutions and its
attention over time would have seen of the pieces before. Wan and CogVideoX have such caches; Cosmos is walked through
here with a memory of our own. LTX's published decoders look ahead and cannot.

Videos and latents are [B, C, T, H, W] here, as these classes have them.
"""

import itertools
import math
from statistics import fmean, pvariance
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders import autoencoder_kl_cosmos as cosmos
from diffusers.models.autoencoders import autoencoder_kl_wan as wan
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from magi_video.codecs.temporal import Memory
from magi_video.codecs.vae import claimed_statistics
from magi_video.errors import MagiError


class VideoCoder:
    """One VAE class. `vae` is an instance of it, in evaluation mode."""

    vae_class: Any
    first_piece = 1
    """Latent frames that are decoded together at the start of a video; 0 for all there are, waiting for the last."""
    next_pieces = 1
    """Latent frames of each later piece."""

    @staticmethod
    def factors(settings: Any) -> tuple[int, int]:
        """Spatial and temporal factor of a VAE with this config."""
        raise NotImplementedError

    @staticmethod
    def channels(settings: Any) -> int:
        """Latent channels."""
        return settings.latent_channels

    @staticmethod
    def colours(settings: Any) -> int:
        """Input channels that RGB pixels give."""
        return 3

    @staticmethod
    def statistics(vae: Any) -> tuple[list[float], list[float]]:
        """Mean and deviation of each latent channel that the VAE claims."""
        return claimed_statistics(vae.config)

    @staticmethod
    def encode(vae: Any, video: Tensor) -> Tensor:
        """The mode of the posterior, [B, C, t, h, w]."""
        return vae.encode(video).latent_dist.mode()

    @staticmethod
    def decode(vae: Any, latents: Tensor, memory: Memory) -> Tensor:
        """Pixels [B, 3, T, H, W] of the next piece of a video."""
        raise NotImplementedError


class _Wan(VideoCoder):
    """Causal to the bit, by the class's own caches: one latent frame at a time, as diffusers does it too."""

    vae_class = wan.AutoencoderKLWan

    @staticmethod
    @override
    def factors(settings: Any) -> tuple[int, int]:
        if sum(settings.temperal_downsample) != 2:
            raise MagiError("AutoencoderKLWan reads four frames at a time: expected two levels that compress time")
        return 2 ** (len(settings.dim_mult) - 1) * (settings.patch_size or 1), 4

    @staticmethod
    @override
    def channels(settings: Any) -> int:
        return settings.z_dim

    @staticmethod
    @override
    def colours(settings: Any) -> int:
        return 3 * (settings.patch_size or 1) ** 2

    @staticmethod
    @override
    def statistics(vae: Any) -> tuple[list[float], list[float]]:
        return list(vae.config.latents_mean), list(vae.config.latents_std)

    @staticmethod
    @override
    def decode(vae: Any, latents: Tensor, memory: Memory) -> Tensor:
        latents = vae.post_quant_conv(latents)
        frames = []
        for latent in latents.split(1, dim=2):
            first = not memory
            if first:
                memory["convolutions"] = [None] * sum(
                    isinstance(module, wan.WanCausalConv3d) for module in vae.decoder.modules()
                )
            frames.append(vae.decoder(latent, memory["convolutions"], [0], first_chunk=first))
        return wan.unpatchify(torch.cat(frames, dim=2), vae.config.patch_size or 1)


class _CogVideoX(VideoCoder):
    """Its normalisation pools over the frames that are coded together, and it was trained on pairs of latent frames.

    So pieces are those of diffusers for an odd number of latent frames: three, then two at a time. A first latent
    frame depends, through that normalisation, on the up to 15 frames that are encoded with it.
    """

    vae_class = AutoencoderKLCogVideoX
    first_piece, next_pieces = 3, 2

    @staticmethod
    @override
    def factors(settings: Any) -> tuple[int, int]:
        return 2 ** (len(settings.block_out_channels) - 1), int(settings.temporal_compression_ratio)

    @staticmethod
    @override
    def decode(vae: Any, latents: Tensor, memory: Memory) -> Tensor:
        if vae.post_quant_conv is not None:
            latents = vae.post_quant_conv(latents)
        decoder, first = vae.decoder, not memory

        def remembering(name: Any, module: nn.Module, *inputs: Any) -> Tensor:
            result, memory[name] = module(*inputs, conv_cache=memory.get(name))
            return result

        frames = remembering("in", decoder.conv_in, latents)
        frames = remembering("middle", decoder.mid_block, frames, None, latents)
        for level, block in enumerate(decoder.up_blocks):
            for number, resnet in enumerate(block.resnets):
                frames = remembering((level, number), resnet, frames, None, latents)
            for upsampler in block.upsamplers or ():
                frames = _upsample_cogvideox(upsampler, frames, first)
        frames = decoder.conv_act(remembering("norm", decoder.norm_out, frames, latents))
        return remembering("out", decoder.conv_out, frames)


def _upsample_cogvideox(upsampler: Any, frames: Tensor, first: bool) -> Tensor:
    # The class itself tells a video's first frame, which is not doubled, by an odd number of frames.
    frames = frames.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    if upsampler.compress_time:
        frames = frames.repeat_interleave(2, dim=2)[:, :, int(first) :]
    batch = len(frames)
    return upsampler.conv(frames.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1)).transpose(1, 2)


class _Cosmos(VideoCoder):
    """Causal: convolutions over time remember two frames, attention over time the keys and values of all of them."""

    vae_class = cosmos.AutoencoderKLCosmos

    @staticmethod
    @override
    def factors(settings: Any) -> tuple[int, int]:
        return settings.spatial_compression_ratio, settings.temporal_compression_ratio

    @staticmethod
    @override
    def statistics(vae: Any) -> tuple[list[float], list[float]]:
        # Its published statistics are a list for each of 16 latent frames; over them, one mean and deviation a channel.
        channels, mean, std = vae.config.latent_channels, vae.config.latents_mean, vae.config.latents_std
        if not mean or not std or len(mean) != len(std) or len(mean) % channels:
            return [0.0] * channels, [1.0] * channels
        frames = len(mean) // channels
        pooled_mean, pooled_std = [], []
        for start in range(0, len(mean), frames):
            means, stds = mean[start : start + frames], std[start : start + frames]
            pooled_mean.append(fmean(means))
            pooled_std.append(math.sqrt(fmean(each**2 for each in stds) + pvariance(means)))
        return pooled_mean, pooled_std

    @staticmethod
    @override
    def encode(vae: Any, video: Tensor) -> Tensor:
        if video.device.type != "cpu" or video.dtype == torch.float32:
            return VideoCoder.encode(vae, video)
        # PyTorch's average pooling over time knows no half precision on CPUs.
        tensors = itertools.chain(vae.encoder.named_parameters(), vae.encoder.named_buffers())
        encoder = {name: tensor.float() for name, tensor in tensors}
        return vae.quant_conv(functional_call(vae.encoder, encoder, video.float()).to(video.dtype))

    @staticmethod
    @override
    def decode(vae: Any, latents: Tensor, memory: Memory) -> Tensor:
        return _CosmosWalk(memory).decode(vae, latents)


class _CosmosWalk:
    """One pass through a Cosmos decoder, over the next piece of a video."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.first = memory, not memory
        memory["begun"] = True

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        decoder = vae.decoder
        frames = self.project(decoder.conv_in, vae.post_quant_conv(latents))
        middle = decoder.mid_block
        frames = self.resnet(middle.resnets[0], frames)
        for spatial, temporal, resnet in zip(
            middle.attentions, middle.temp_attentions, middle.resnets[1:], strict=True
        ):
            frames = self.resnet(resnet, self.attend(temporal, spatial(frames)))
        for block in decoder.up_blocks:
            for resnet, spatial, temporal in zip(block.resnets, block.attentions, block.temp_attentions, strict=True):
                frames = self.resnet(resnet, frames)
                frames = frames if spatial is None else spatial(frames)
                frames = frames if temporal is None else self.attend(temporal, frames)
            for upsampler in block.upsamplers or ():
                frames = self.upsample(upsampler, frames)
        frames = self.project(decoder.conv_out, F.silu(decoder.norm_out(frames)))
        unpatch = decoder.unpatch_embed
        if self.first:
            return unpatch(frames)
        # The class drops the copies that the first frame was padded with; a later piece has none: give it some to drop.
        return unpatch(torch.cat([frames[:, :, :1], frames], dim=2))[:, :, 1:]

    def project(self, projection: Any, frames: Tensor) -> Tensor:
        return self.convolve(projection.conv_t, projection.conv_s(frames))

    def resnet(self, block: Any, frames: Tensor) -> Tensor:
        hidden = self.project(block.conv1, F.silu(block.norm1(frames)))
        hidden = self.project(block.conv2, F.silu(block.norm2(hidden)))
        return hidden + block.conv_shortcut(frames)

    def convolve(self, conv: Any, frames: Tensor) -> Tensor:
        """A convolution over time; it sees the last frames of the piece before, or copies of the very first frame."""
        past = self.memory.get(conv)
        if past is None:
            past = frames[:, :, :1].repeat(1, 1, conv.temporal_pad, 1, 1)
        frames = torch.cat([past, frames], dim=2)
        self.memory[conv] = frames[:, :, -conv.temporal_pad :].clone()
        return nn.Conv3d.forward(conv, frames)

    def attend(self, attention: Any, frames: Tensor) -> Tensor:
        """Attention along time at each place, to all frames up to the present one."""
        normed = attention.norm(frames)
        query, key, value = (
            to(normed).permute(0, 3, 4, 2, 1).flatten(0, 2).unflatten(2, (attention.num_attention_heads, -1))
            for to in (attention.to_q, attention.to_k, attention.to_v)
        )
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        if attention in self.memory:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self.memory[attention], (key, value), strict=True))
        self.memory[attention] = key, value
        new, seen = query.shape[2], key.shape[2]
        mask = torch.ones(new, seen, dtype=torch.bool, device=key.device).tril(seen - new)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        batch, _, _, height, width = frames.shape
        out = out.unflatten(0, (batch, height, width)).permute(0, 4, 3, 1, 2)
        return attention.to_out[0](out) + frames

    def upsample(self, upsampler: Any, frames: Tensor) -> Tensor:
        if upsampler.temporal_upsample:
            frames = frames.repeat_interleave(2, dim=2)[:, :, int(self.first) :]
            frames = self.convolve(upsampler.conv1, frames) + frames
        if upsampler.spatial_upsample:
            frames = frames.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            frames = upsampler.conv2(frames) + frames
        return upsampler.conv3(frames)


class _LTXVideo(VideoCoder):
    """Causal encoder; the published decoders see frames on both sides, so all latent frames are decoded together."""

    vae_class = AutoencoderKLLTXVideo
    first_piece = 0

    @staticmethod
    @override
    def factors(settings: Any) -> tuple[int, int]:
        if any(settings.decoder_inject_noise):
            raise MagiError("this AutoencoderKLLTXVideo draws noise while it decodes; expected one that does not")
        levels = 2 ** sum(settings.spatio_temporal_scaling)
        spatial = settings.get("spatial_compression_ratio") or settings.patch_size * levels
        return spatial, settings.get("temporal_compression_ratio") or settings.patch_size_t * levels

    @staticmethod
    @override
    def statistics(vae: Any) -> tuple[list[float], list[float]]:
        return vae.latents_mean.tolist(), (vae.latents_std / vae.config.scaling_factor).tolist()

    @staticmethod
    @override
    def decode(vae: Any, latents: Tensor, memory: Memory) -> Tensor:
        # Versions that denoise while they decode take a time: 0, no noise.
        time = latents.new_zeros(len(latents)) if vae.config.timestep_conditioning else None
        return vae.decoder(latents, time)


CODERS: dict[str, type[VideoCoder]] = {
    coder.vae_class.__name__: coder for coder in (_Cosmos, _Wan, _CogVideoX, _LTXVideo)
}
"""The diffusers classes a config may name; nothing else is ever built."""
