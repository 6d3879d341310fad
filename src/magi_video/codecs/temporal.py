"""What codecs that compress time share: decoding in pieces, with a memory of the pieces before."""

from collections.abc import Iterator
from typing import Any

import torch
from typing_extensions import override

from magi_video.codecs.base import Codec

Memory = dict[Any, Any]
"""What a decoder keeps of a video from piece to piece; empty before its first."""

PIXELS_ELSEWHERE = 1 << 22
"""Pixels encoded at once on an accelerator, 64 frames of 256 by 256; CPUs gain nothing from more than one clip."""


class TemporalCodec(Codec):
    """Base of codecs with temporal_factor > 1; a subclass writes `encode_raw` and `decode_piece`.

    `decode` is the stream's pieces joined, so that the two cannot differ.
    """

    first_piece: int = 1
    """Latent frames that are decoded together at the start of a video; 0 for all there are, waiting for the last."""
    next_pieces: int = 1
    """Latent frames of each later piece."""
    max_pixels_at_once: int | None = None
    """Pixels of all frames that are encoded at once, a clip at least; None for what suits the device."""

    @property
    @override
    def streams(self) -> bool:  # type: ignore[override]
        """Whether `decode_stream` gives pixels before the last latent frame is there."""
        return self.first_piece > 0

    def decode_piece(self, latents_BTCHW: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Decode the next latent frames of a video, the codec's own, to pixels [B, T, 3, H, W]; updates `memory`."""
        raise NotImplementedError

    def clips_at_once(self, video_BTCHW: torch.Tensor) -> int:
        """How many clips of this size are encoded at once."""
        suited = 0 if video_BTCHW.device.type == "cpu" else PIXELS_ELSEWHERE
        limit = suited if self.max_pixels_at_once is None else self.max_pixels_at_once
        return max(1, limit // (video_BTCHW.shape[1] * video_BTCHW.shape[3] * video_BTCHW.shape[4]))

    @override
    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode all latent frames, piece by piece: memory does not grow with the video but by its pixels."""
        memory: Memory = {}
        return torch.cat(
            [self.decode_piece(piece, memory).float() for piece in self._pieces(iter(latents_BTCHW.unbind(1)))], dim=1
        )

    @override
    def decode_stream(self, latents: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Decode latent frames [B, C, h, w] as they come; yields the pixels [B, T, 3, H, W] each piece completes."""
        memory: Memory = {}
        for piece_BTCHW in self._pieces(latents):
            # The contexts are closed while the next latent frames are made: they are not that maker's.
            with torch.no_grad(), torch.autocast(piece_BTCHW.device.type, enabled=False):
                pixels_BTCHW = self.decode_piece(self.denormalize(piece_BTCHW), memory).float().clamp(-1, 1)
            yield pixels_BTCHW

    def _pieces(self, latents: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Latent frames that come one by one, as the pieces [B, t, C, h, w] that are decoded together."""
        waiting: list[torch.Tensor] = []
        wanted = self.first_piece
        for latents_BCHW in latents:
            waiting.append(latents_BCHW)
            if len(waiting) == wanted:
                yield torch.stack(waiting, dim=1)
                waiting, wanted = [], self.next_pieces
        if waiting:
            yield torch.stack(waiting, dim=1)
