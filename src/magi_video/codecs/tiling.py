"""Coding a large picture in overlapping tiles, one after another: less memory, seams blended away.

A tile does not see beyond its edge, so the result differs a little from that of the whole picture, most of all where a
network attends to all of it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_video.errors import MagiError

OVERLAP = 0.25
"""Share of a tile's side that it shares with its neighbour, at least."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of the input, in positions of the coarser of the two grids (a VAE's latents)."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, video: Tensor, scale: int) -> Tensor:
        """This part of a video [..., H, W] whose sides have `scale` values for each position."""
        rows = slice(self.top * scale, (self.top + self.height) * scale)
        return video[..., rows, self.left * scale : (self.left + self.width) * scale]


def spread_tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of at most `side` positions a side that cover height × width and overlap by `OVERLAP`, evenly spread."""
    if side < 2:
        raise MagiError(f"a tile has {side} latent positions a side; expected at least 2")
    rows, columns = list(_starts(height, side)), list(_starts(width, side))
    return [Tile(top, left, min(side, height), min(side, width)) for top in rows for left in columns]


def blend_tiles(tiles: list[Tile], code: Callable[[int, Tile], Tensor], height: int, width: int, scale: int) -> Tensor:
    """Code each tile and join them, each fading into its neighbours.

    Args:
        tiles: as from `spread_tiles`.
        code: gives the result of a tile (and its number): [..., tile.height × scale, tile.width × scale].
        height, width: of the whole, in positions.
        scale: values of the result for each position, along either side.
    """
    total = weights_HW = None
    for number, tile in enumerate(tiles):
        part = code(number, tile)
        if len(tiles) == 1:
            return part
        fade_HW = torch.outer(*(_fade(size * scale, part) for size in (tile.height, tile.width)))
        if total is None or weights_HW is None:
            total = part.new_zeros(*part.shape[:-2], height * scale, width * scale, dtype=torch.float32)
            weights_HW = torch.zeros_like(total[(0,) * (total.ndim - 2)])
        tile.cut(total, scale).add_(part * fade_HW)
        tile.cut(weights_HW, scale).add_(fade_HW)
    if total is None or weights_HW is None:
        raise MagiError("a picture without tiles; expected at least one")
    return total / weights_HW


def _starts(length: int, side: int) -> Iterator[int]:
    steps = 1 if length <= side else 1 + math.ceil((length - side) / max(1, math.floor(side * (1 - OVERLAP))))
    for number in range(steps):
        yield 0 if steps == 1 else round(number * (length - side) / (steps - 1))


def _fade(length: int, like: Tensor) -> Tensor:
    """Weights that rise over the overlap from the edges on: only their ratio to the neighbour's matters."""
    places = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
    return (torch.minimum(places, places.flip(0)) / max(1.0, OVERLAP * length)).clamp(max=1)
