"""Tiles: they cover, overlap, and joined they are what they were cut from."""

import itertools

import pytest
import torch

from magi_video.codecs.tiling import OVERLAP, blend_tiles, spread_tiles
from magi_video.errors import MagiError


@pytest.mark.parametrize(("height", "width", "side"), [(9, 20, 8), (8, 8, 8), (3, 50, 7), (16, 17, 16), (5, 5, 2)])
def test_they_cover_and_overlap(height, width, side):
    tiles = spread_tiles(height, width, side)
    seen = torch.zeros(height, width)
    for tile in tiles:
        assert 0 <= tile.top <= height - tile.height and 0 <= tile.left <= width - tile.width
        assert tile.height == min(side, height) and tile.width == min(side, width)
        tile.cut(seen, 1).add_(1)
    assert seen.min() == 1
    lefts = sorted({tile.left for tile in tiles})
    for left, right in itertools.pairwise(lefts):
        assert left + side - right >= OVERLAP * side - 1
    assert (len(tiles) == 1) == (height <= side and width <= side)


@pytest.mark.parametrize("side", [4, 6, 32])
def test_what_is_coded_place_by_place_is_joined_exactly(side):
    latents = torch.rand((2, 3, 10, 13), generator=torch.Generator().manual_seed(0))

    def enlarge(part):
        return part.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)

    joined = blend_tiles(spread_tiles(10, 13, side), lambda _, tile: enlarge(tile.cut(latents, 1)), 10, 13, 4)
    torch.testing.assert_close(joined, enlarge(latents), atol=1e-6, rtol=1e-6)


def test_seams_fade():
    tiles = spread_tiles(8, 14, 8)
    joined = blend_tiles(tiles, lambda number, tile: torch.full((tile.height, tile.width), float(number)), 8, 14, 1)
    assert len(tiles) == 2 and joined[0, 0] == 0 and joined[0, -1] == 1
    assert joined.diff(dim=1).min() >= 0 and joined.diff(dim=1).max() < 1, "no step between the tiles"


def test_too_small_a_tile():
    with pytest.raises(MagiError, match="at least 2"):
        spread_tiles(8, 8, 1)
