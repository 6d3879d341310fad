"""Any of diffusers' causal 3D VAEs as a codec: time is compressed, the first frame stands alone.

| class | decoding in pieces | encoding |
|---|---|---|
| AutoencoderKLCosmos, AutoencoderKLWan | each latent frame as it comes, equal to all at once | causal |
| AutoencoderKLCogVideoX | three latent frames, then two at a time | causal but for norms over 8 to 15 frames |
| AutoencoderKLLTXVideo | all latent frames together: its decoder looks ahead | causal |
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from typing_extensions import override

from magi_video.codecs.base import register
from magi_video.codecs.temporal import Memory, TemporalCodec
from magi_video.codecs.tiling import Tile, blend_tiles, spread_tiles
from magi_video.codecs.vae import VAECodec
from magi_video.codecs.video_coders import CODERS
from magi_video.errors import MagiError


@register
class VideoVAECodec(TemporalCodec, VAECodec):
    """A diffusers video VAE with per-channel latent statistics."""

    name = "video_vae"
    title = "a diffusers causal 3D VAE"
    latent_channels = 16
    spatial_factor = 8
    temporal_factor = 4

    vae_modules: ClassVar[Mapping[str, str]] = {name: coder.vae_class.__module__ for name, coder in CODERS.items()}
    tile: int | None = None
    """Largest side in pixels that is coded at once; larger pictures in overlapping tiles, for less memory."""

    @override
    def measure(self, vae_class: str) -> tuple[int, int, int, int]:
        self.coder = CODERS[vae_class]
        self.first_piece, self.next_pieces = self.coder.first_piece, self.coder.next_pieces
        return super().measure(vae_class)

    @staticmethod
    @override
    def factors(vae_class: str, settings: Any) -> tuple[int, int, int, int]:
        coder = CODERS[vae_class]
        return coder.channels(settings), *coder.factors(settings), coder.colours(settings)

    @override
    def claimed_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each raw latent channel, as the VAE has them itself."""
        return self.coder.statistics(self.vae)

    @override
    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Encode to the mode of the posterior, as many clips at once as suit the device."""
        height, width = self.latent_size(*video_BTCHW.shape[3:])
        video_BCTHW = video_BTCHW.transpose(1, 2).to(next(self.vae.parameters()).dtype)
        tiles = spread_tiles(height, width, self._tile_side(height, width))
        clips = []
        for part in video_BCTHW.split(self.clips_at_once(video_BTCHW)):

            def encode(_: int, tile: Tile, part: torch.Tensor = part) -> torch.Tensor:
                return self.coder.encode(self.vae, tile.cut(part, self.spatial_factor).contiguous())

            clips.append(blend_tiles(tiles, encode, height, width, 1))
        shape = (self.latent_channels, self.num_latent_frames(video_BTCHW.shape[1]), height, width)
        return self._checked(torch.cat(clips), shape).transpose(1, 2).contiguous()

    @override
    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode all latent frames; of several tiles one after another, so that one tile's memory is held at a time."""
        return self._decode_tiles(list(self._pieces(iter(latents_BTCHW.unbind(1)))), None)

    @override
    def decode_piece(self, latents_BTCHW: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Decode the next latent frames of a video; each tile has a memory of its own."""
        return self._decode_tiles([latents_BTCHW], memory)

    def _decode_tiles(self, pieces: list[torch.Tensor], memory: Memory | None) -> torch.Tensor:
        """Pixels of pieces [B, t, C, h, w] that follow `memory`, or begin a video and are all of it (None)."""
        (height, width), begins = pieces[0].shape[3:], not memory
        frames = self.temporal_factor * sum(piece.shape[1] for piece in pieces)
        dtype = next(self.vae.parameters()).dtype

        def decode(number: int, tile: Tile) -> torch.Tensor:
            held = {} if memory is None else memory.setdefault(number, {})
            parts = (tile.cut(piece_BTCHW, 1).transpose(1, 2).to(dtype) for piece_BTCHW in pieces)
            return torch.cat([self.coder.decode(self.vae, part.contiguous(), held) for part in parts], dim=2)

        tiles = spread_tiles(height, width, self._tile_side(height, width))
        pixels_BCTHW = blend_tiles(tiles, decode, height, width, self.spatial_factor)
        shape = (
            3,
            frames - begins * (self.temporal_factor - 1),
            *(self.spatial_factor * side for side in (height, width)),
        )
        return self._checked(pixels_BCTHW, shape).transpose(1, 2).contiguous()

    def _tile_side(self, height: int, width: int) -> int:
        """In latent positions; at least 2, the whole picture where no tile is asked for."""
        return max(2, height, width) if self.tile is None else max(2, self.tile // self.spatial_factor)

    def _checked(self, coded_BCTHW: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if coded_BCTHW.shape[1:] != shape:
            raise MagiError(
                f"this {type(self.vae).__name__} gives {list(coded_BCTHW.shape[1:])}; its config promises {list(shape)}"
            )
        return coded_BCTHW
