"""The OmniTokenizer VAE, which the paper uses for Kinetics-600 (Wang et al. 2024, arXiv 2406.09399).

A transformer on patches of 8 × 8 pixels: the first frame by itself, then four frames at a time. The encoder attends in
space, then causally in time; the decoder in time, then in space. `omnitokenizer_checkpoint` converts published weights.

Two things of the published network are not what one would write, and are kept because its weights are used to them:
keys and values are made of the tokens before the norm, and the layers over time mix neighbours of a grid that they
read in the wrong order (`time_layout="published"`), so that a latent frame depends on later ones.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs.base import Codec, register
from magi_video.codecs.registry import load_codec
from magi_video.codecs.sizes import LatentSizes
from magi_video.codecs.temporal import Memory, TemporalCodec
from magi_video.errors import MagiError
from magi_video.models.configured import capture_config
from magi_video.recipe import CodecConfig, Preset

TimeLayout = Literal["causal", "published"]
ROTARY_BASE = 10_000.0
SIMILARITY_SCALE = 8.0
"""Of the cosine between a query and a key."""


@register
class OmniTokenizerCodec(TemporalCodec):
    """OmniTokenizer as a codec; the latent is the mean of the posterior.

    Args:
        patch_size: pixels of a patch's side, which is the spatial factor.
        temporal_patch_size: frames of a patch but for the first frame's, which is the temporal factor.
        width: of the transformer.
        latent_channels: of a latent frame.
        encoder_blocks, decoder_blocks: the spatial layers, "t" for attention to the whole frame, "w" within windows.
        temporal_depth: layers over time.
        heads, head_dim: of all attention.
        window: side of a window in patches.
        mlp_ratio: width of the gated MLPs, times 2/3.
        time_layout: "causal", for weights trained here; "published", as the published weights were trained: then a
            latent frame depends on later ones, and a video is decoded as a whole.
        latents_mean, latents_std: statistics of each raw latent channel; 0 and 1 until they are measured.
    """

    name = "omnitokenizer"
    title = "a converted OmniTokenizer VAE"
    latent_channels = 8
    spatial_factor = 8
    temporal_factor = 4

    @capture_config
    def __init__(
        self,
        patch_size: int = 8,
        temporal_patch_size: int = 4,
        width: int = 512,
        latent_channels: int = 8,
        encoder_blocks: str = "ttww",
        decoder_blocks: str = "tttt",
        temporal_depth: int = 4,
        heads: int = 8,
        head_dim: int = 64,
        window: int = 8,
        mlp_ratio: float = 4.0,
        time_layout: TimeLayout = "causal",
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if time_layout not in get_args(TimeLayout) or set(encoder_blocks + decoder_blocks) - set("tw"):
            raise MagiError(
                f"OmniTokenizer with time_layout {time_layout!r} and blocks {encoder_blocks!r}, {decoder_blocks!r}; "
                'expected "causal" or "published", and blocks of t and w'
            )
        if min(patch_size, temporal_patch_size, latent_channels, heads, window) < 1 or head_dim % 4 or width % heads:
            raise MagiError("OmniTokenizer: sizes must be positive, heads divide the width, 4 divides head_dim")
        self.latent_channels = latent_channels
        self.spatial_factor, self.temporal_factor = patch_size, temporal_patch_size
        self.first_piece = 1 if time_layout == "causal" else 0
        self.size_step = patch_size * (window if "w" in encoder_blocks + decoder_blocks else 1)

        def layers(kinds: str) -> Transformer:
            return Transformer(
                Layer(kind, width, heads, head_dim, window, int(mlp_ratio * 2 / 3 * width)) for kind in kinds
            )

        over_time = ("c" if time_layout == "causal" else "p") * temporal_depth
        first, rest = (3 * patch_size**2 * frames for frames in (1, temporal_patch_size))
        self.embed_first = nn.Sequential(nn.LayerNorm(first), nn.Linear(first, width), nn.LayerNorm(width))
        self.embed_rest = nn.Sequential(nn.LayerNorm(rest), nn.Linear(rest, width), nn.LayerNorm(width))
        self.encoder = nn.ModuleDict({"spatial": layers(encoder_blocks), "temporal": layers(over_time)})
        self.to_moments = nn.Linear(width, 2 * latent_channels)
        self.from_latents = nn.Linear(latent_channels, width)
        self.decoder = nn.ModuleDict({"temporal": layers(over_time), "spatial": layers(decoder_blocks)})
        self.to_first = nn.Linear(width, first)
        self.to_rest = nn.Linear(width, rest)
        self.set_statistics(
            [0.0] * latent_channels if latents_mean is None else latents_mean,
            [1.0] * latent_channels if latents_std is None else latents_std,
        )

    @classmethod
    @override
    def pretrained(cls, settings: CodecConfig) -> Codec:
        folder = Path(settings.vae, settings.vae_subfolder)
        if not folder.is_dir():
            raise MagiError(
                f"no folder {folder}; expected OmniTokenizer's weights as converted by "
                "magi weights convert-omnitokenizer CHECKPOINT --out FOLDER, named with --vae"
            )
        codec = load_codec(folder)
        if not isinstance(codec, cls):
            raise MagiError(f"{folder} holds {type(codec).__name__}; expected {cls.__name__}")
        return codec

    @classmethod
    @override
    def sizes_for(cls, preset: Preset) -> LatentSizes:
        """Of the weights themselves, which are a folder of this machine."""
        return cls.pretrained(preset.codec)

    @override
    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a `height` × `width` picture, which must consist of whole windows."""
        step = self.size_step
        if height < 1 or width < 1 or height % step or width % step:
            raise MagiError(f"OmniTokenizer cannot encode {height}x{width} pixels; expected sides that {step} divides")
        return height // self.spatial_factor, width // self.spatial_factor

    @override
    def encode_raw(self, video_BTCHW: Tensor) -> Tensor:
        """Encode to the mean of the posterior, as many clips at once as suit the device."""
        clips = video_BTCHW.to(self.to_moments.weight.dtype).split(self.clips_at_once(video_BTCHW))
        return torch.cat([self._encode(clip_BTCHW) for clip_BTCHW in clips])

    @override
    def decode_piece(self, latents_BTCHW: Tensor, memory: Memory) -> Tensor:
        """Decode the next latent frames of a video."""
        begins = not memory
        memory["begun"] = True
        x_BTHWD = self.from_latents(latents_BTCHW.to(self.to_moments.weight.dtype).movedim(2, -1))
        x_BTHWD = self.decoder["spatial"](self.decoder["temporal"](x_BTHWD, memory), memory)
        parts = []
        if begins:
            parts.append(self._unpatch(self.to_first(x_BTHWD[:, :1]), 1))
            x_BTHWD = x_BTHWD[:, 1:]
        if x_BTHWD.shape[1]:
            parts.append(self._unpatch(self.to_rest(x_BTHWD), self.temporal_factor))
        return 2 * torch.cat(parts, dim=1)  # the network's pixels lie in [-0.5, 0.5]

    def _encode(self, video_BTCHW: Tensor) -> Tensor:
        pixels_BTCHW = video_BTCHW / 2
        tokens = [self.embed_first(self._patch(pixels_BTCHW[:, :1], 1))]
        if pixels_BTCHW.shape[1] > 1:
            tokens.append(self.embed_rest(self._patch(pixels_BTCHW[:, 1:], self.temporal_factor)))
        x_BTHWD = self.encoder["spatial"](torch.cat(tokens, dim=1), {})
        moments_BTHWC = self.to_moments(self.encoder["temporal"](x_BTHWD, {}))
        return moments_BTHWC[..., : self.latent_channels].movedim(-1, 2)

    def _patch(self, pixels_BTCHW: Tensor, frames: int) -> Tensor:
        """Patches of so many frames, [B, t, h, w, channel · frame · row · column]."""
        size = self.spatial_factor
        x = pixels_BTCHW.unflatten(4, (-1, size)).unflatten(3, (-1, size)).unflatten(1, (-1, frames))
        return x.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4)  # from B t f C h p w q

    def _unpatch(self, patches_BTHWD: Tensor, frames: int) -> Tensor:
        size = self.spatial_factor
        x = patches_BTHWD.unflatten(4, (3, frames, size, size)).permute(0, 1, 5, 4, 2, 6, 3, 7)  # to B t f C h p w q
        return x.flatten(6, 7).flatten(4, 5).flatten(1, 2)


class Transformer(nn.Module):
    """Layers and a last norm, on tokens [B, T, H, W, D]."""

    def __init__(self, layers: "Iterable[Layer]") -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(self.layers[0].width, bias=False) if len(self.layers) else nn.Identity()

    def forward(self, x_BTHWD: Tensor, memory: Memory) -> Tensor:
        """The tokens of the next frames of a video; `memory` holds what layers keep of the frames before."""
        for layer in self.layers:
            x_BTHWD = layer(x_BTHWD, memory)
        return self.norm(x_BTHWD)


class Layer(nn.Module):
    """Mixing of neighbours (not with windows), attention, gated MLP, each added to its input.

    Args:
        kind: attention to the frame ("t"), within windows ("w"), or along time ("c" causal, "p" published).
        width, heads, head_dim: of the attention.
        window: side of a window in tokens.
        inner: width of the MLP.
    """

    def __init__(self, kind: str, width: int, heads: int, head_dim: int, window: int, inner: int) -> None:
        super().__init__()
        self.kind, self.width, self.head_dim = kind, width, head_dim
        self.mixing = None if kind == "w" else Mixing(width, published=kind == "p")
        self.attention: WindowAttention | Attention
        self.attention = WindowAttention(width, heads, window) if kind == "w" else Attention(width, heads, head_dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * inner, bias=False),
            GatedGELU(),
            nn.Linear(inner, width, bias=False),
        )

    def forward(self, x_BTHWD: Tensor, memory: Memory) -> Tensor:
        """See `Transformer.forward`."""
        if self.mixing is not None:
            x_BTHWD = x_BTHWD + self.mixing(x_BTHWD, memory)
        batch, frames, height, width, _ = x_BTHWD.shape
        if self.kind == "w":
            x_BTHWD = x_BTHWD + self.attention(x_BTHWD)
        elif self.kind == "t":
            rotation_ND = rotation_2d(height, width, self.head_dim, x_BTHWD.device)
            attended = self.attention(x_BTHWD.flatten(2, 3).flatten(0, 1), rotation_ND=rotation_ND)
            x_BTHWD = x_BTHWD + attended.view(batch, frames, height, width, -1)
        else:
            attended = self.attention(x_BTHWD.permute(0, 2, 3, 1, 4).flatten(0, 2), memory=memory)
            x_BTHWD = x_BTHWD + attended.view(batch, height, width, frames, -1).permute(0, 3, 1, 2, 4)
        return x_BTHWD + self.mlp(x_BTHWD)


class Mixing(nn.Module):
    """A 3 × 3 × 3 convolution of each channel, over this and the last two frames: the network's sense of place.

    Args:
        width: channels.
        published: read tokens laid out as [H, W, T] as if they were [T, H, W], as the published layers over time do.
    """

    def __init__(self, width: int, published: bool) -> None:
        super().__init__()
        self.published = published
        self.conv = nn.Conv3d(width, width, 3, padding=(0, 1, 1), groups=width)

    def forward(self, x_BTHWD: Tensor, memory: Memory) -> Tensor:
        """The mixed tokens, to be added."""
        batch, frames, height, width, _ = x_BTHWD.shape
        if not self.published:
            return self._mix(x_BTHWD, memory)
        misread = x_BTHWD.permute(0, 2, 3, 1, 4).reshape(x_BTHWD.shape)
        return self._mix(misread, {}).reshape(batch, height, width, frames, -1).permute(0, 3, 1, 2, 4)

    def _mix(self, x_BTHWD: Tensor, memory: Memory) -> Tensor:
        x_BDTHW = x_BTHWD.movedim(-1, 1)
        past = memory.get(self)
        if past is None:
            past = torch.zeros_like(x_BDTHW[:, :, :1]).expand(-1, -1, 2, -1, -1)
        x_BDTHW = torch.cat([past, x_BDTHW], dim=2)
        memory[self] = x_BDTHW[:, :, -2:].clone()
        return self.conv(x_BDTHW).movedim(1, -1)


class Attention(nn.Module):
    """Attention by scaled cosines; with a memory causal, to all tokens so far."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x_BND: Tensor, rotation_ND: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """What each token gathers, to be added.

        Args:
            x_BND: tokens; only queries see them normalised.
            rotation_ND: from `rotation_2d`, or none.
            memory: keeps keys and values.
        """
        query, key, value = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each in (self.to_q(self.norm(x_BND)), *self.to_kv(x_BND).chunk(2, dim=-1))
        )
        if rotation_ND is not None:
            query, key = rotate(query, rotation_ND), rotate(key, rotation_ND)
        query = F.normalize(query, dim=-1) * self.q_scale
        key = F.normalize(key, dim=-1) * self.k_scale
        mask = None
        if memory is not None:
            if self in memory:
                past_key, past_value = memory[self]
                key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
            memory[self] = key, value
            new, seen = query.shape[2], key.shape[2]
            mask = torch.ones(new, seen, dtype=torch.bool, device=key.device).tril(seen - new)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=SIMILARITY_SCALE)
        return self.to_out(out.transpose(1, 2).flatten(2))


class WindowAttention(nn.Module):
    """Plain attention within windows, with a learned bias for each relative position."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTHWD: Tensor) -> Tensor:
        """What each token gathers, to be added."""
        side, shape = self.window, x_BTHWD.shape
        grid = self.norm(x_BTHWD).flatten(0, 1).unflatten(2, (-1, side)).unflatten(1, (-1, side))
        windows = grid.transpose(2, 3)  # [frame, window's row, its column, row in it, column in it, D]
        query, key, value = (
            each.flatten(3, 4).flatten(0, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each in self.qkv(windows).chunk(3, dim=-1)
        )
        bias_HNN = self.bias[self._relative_places()].permute(2, 0, 1).to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias_HNN)
        out = self.proj(out.transpose(1, 2).flatten(2)).view(windows.shape)
        return out.transpose(2, 3).reshape(shape)

    def _relative_places(self) -> Tensor:
        """Row of the bias table for each pair of a window's tokens."""
        steps = torch.arange(self.window, device=self.bias.device)
        row, column = (each.flatten() for each in torch.meshgrid(steps, steps, indexing="ij"))
        apart = self.window - 1
        return (row[:, None] - row + apart) * (2 * self.window - 1) + (column[:, None] - column + apart)


class GatedGELU(nn.Module):
    """The first half of the channels, gated by the second."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


def rotation_2d(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Unit complex numbers [height · width, dim / 2]: columns turn the even pairs of channels, rows the odd ones."""
    frequencies = ROTARY_BASE ** -(torch.arange(0, dim, 4, device=device, dtype=torch.float32) / dim)
    places = torch.arange(height * width, device=device)
    angles = torch.stack([places % width, places // width], dim=1)[:, None] * frequencies[:, None]
    return torch.polar(torch.ones(()).to(device), angles.flatten(1))


def rotate(x: Tensor, rotation_ND: Tensor) -> Tensor:
    """Turn the adjacent pairs of channels of [..., N, dim]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation_ND).flatten(-2).to(x.dtype)
