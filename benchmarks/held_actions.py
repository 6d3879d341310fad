"""Worlds whose actions are held, and what each action must look like there: what `actions.py` measures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from magi_video.recordings.environments import Game
from magi_video.video.image import fit_frames

Motion = dict[str, np.ndarray]  # a name with its unit → one value for each clip, [B]


class World(ABC):
    """A game, the actions that are held in it, and what each of them must look like.

    Attributes:
        game, frame_skip: as `open_game` takes them; what `magi record` was told.
        interval: steps of the game from one frame of a clip to the next.
        steps: frames that follow the first.
        holds: the actions, each as the buttons that are held together.
        mirrored: for each hold the number of the one that its mirror image shows.
        rest: the buttons in which a player comes to a standstill, and for how many steps of the game.
        lead: least and most steps of the explorer before that.
    """

    game: str
    frame_skip: int
    interval: int
    steps: int
    holds: ClassVar[Mapping[str, tuple[str, ...]]]
    mirrored: tuple[int, ...]
    rest: tuple[tuple[str, ...], int]
    lead: tuple[int, int]

    @abstractmethod
    def is_free(self, game: Game, frame_HWC: np.ndarray) -> bool:
        """Whether every action can be seen to act from here; looks at the present alone."""

    @abstractmethod
    def see(self, clips_BTHWC: np.ndarray) -> Motion:
        """What moved in each clip."""

    @abstractmethod
    def judge(self, motion: Motion) -> np.ndarray:
        """Numbers of the holds that the motion shows, `[B]`; −1 for none."""


class Doom(World):
    """Turning moves the picture sideways, walking lets it grow, standing still does neither."""

    game, frame_skip = "vizdoom/my_way_home", 1
    interval, steps = 2, 8
    holds: ClassVar = {
        "turn left": ("TURN_LEFT",),
        "turn right": ("TURN_RIGHT",),
        "forward": ("MOVE_FORWARD",),
        "nothing": (),
    }
    mirrored = 1, 0, 2, 3
    rest = (), 35  # a player keeps 29/32 of the speed each tic
    lead = 20, 60

    VIEW = slice(6, 46)  # of 64 rows, those without the weapon and the status bar,
    HORIZON = 30.0  # and the one that all grows away from
    LARGEST = 16  # pixels of a shift between two frames
    GROWTHS = np.exp(np.arange(-8, 13) * 0.02)  # between two frames that are two apart
    ROOM = 1.5  # ahead, and to both sides of it, in arm's lengths
    TURNS = 1.0  # pixels a frame; more than that
    WALKS = 0.01  # of its size a frame

    def is_free(self, game: Game, frame_HWC: np.ndarray) -> bool:
        around = game.around()
        return around is not None and bool(around.room[1:4].min() >= self.ROOM)

    def see(self, clips_BTHWC: np.ndarray) -> Motion:
        grey_BTHW = clips_BTHWC.astype(np.float32).mean(-1)
        return {"shift to the right, pixels a frame": self._shift(grey_BTHW), "growth a frame": self._growth(grey_BTHW)}

    def judge(self, motion: Motion) -> np.ndarray:
        shift, growth = motion.values()
        return np.where(np.abs(shift) > self.TURNS, np.where(shift > 0, 0, 1), np.where(growth > self.WALKS, 2, 3))

    def _shift(self, grey_BTHW: np.ndarray) -> np.ndarray:
        """Median over neighbouring frames: the peak of the phase correlation."""
        view_BTHW = grey_BTHW[:, :, self.VIEW]
        window = np.hanning(view_BTHW.shape[2])[:, None] * np.hanning(view_BTHW.shape[3])
        spectrum = np.fft.fft2((view_BTHW - view_BTHW.mean((2, 3), keepdims=True)) * window)
        cross = spectrum[:, 1:] * spectrum[:, :-1].conj()
        surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-6)).real
        rows = surface[:, :, [0, 1, -1]].max(axis=2)  # level, but for a pixel
        candidates = np.r_[0 : self.LARGEST + 1, -self.LARGEST : 0]
        return np.median(candidates[rows[..., candidates].argmax(axis=-1)], axis=1)

    def _growth(self, grey_BTHW: np.ndarray) -> np.ndarray:
        """Mean over frames two apart: the enlargement of the first that is most like the second (log, a frame)."""
        before, after = (
            torch.from_numpy(part).flatten(0, 1)[:, None] for part in (grey_BTHW[:, :-2], grey_BTHW[:, 2:])
        )
        height, width = before.shape[-2:]
        rows, columns = torch.arange(height) - self.HORIZON, torch.arange(width) - (width - 1) / 2
        alike = []
        for growth in self.GROWTHS:
            y = (rows / growth + self.HORIZON + 0.5) / height * 2 - 1
            x = (columns / growth + width / 2) / width * 2 - 1
            grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).float()
            grown = F.grid_sample(before, grid.expand(len(before), -1, -1, -1), align_corners=False)
            inside = (y.abs() <= 1)[self.VIEW, None] & (x.abs() <= 1)
            a, b = (part[:, 0, self.VIEW][:, inside] for part in (grown, after))
            alike.append(F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)))
        best = torch.stack(alike).argmax(0).numpy()
        return (np.log(self.GROWTHS[best]) / 2).reshape(len(grey_BTHW), -1).mean(1)


class Boxing(World):
    """The white boxer, whom the player moves, goes the way that is held."""

    game, frame_skip = "ALE/Boxing-v5", 4
    interval, steps = 1, 6
    holds: ClassVar = {name.lower(): (name,) for name in ("RIGHT", "LEFT", "UP", "DOWN")} | {"nothing": ("NOOP",)}
    mirrored = 1, 0, 2, 3, 4
    rest = ("NOOP",), 6  # an arm that is out comes back
    lead = 2, 30

    RING = slice(12, 70), slice(11, 53)  # of 80×64 pixels: rows and columns within the ropes
    RANGE = ((16.0, 47.5), (23.0, 57.0))  # where a boxer's centre can be: columns, rows
    ROOM = 6.0  # pixels to the end of that range: a boxer makes 1.5 a frame,
    APART = 12.0  # and to the side of the other boxer
    MOVES = 0.5  # pixels a frame
    GONE = 0.5  # of a boxer's pixels

    def is_free(self, game: Game, frame_HWC: np.ndarray) -> bool:
        frames_1HWC = fit_frames(frame_HWC[None], 80, 64)
        (white,), _ = self._find(self._white(frames_1HWC))
        (black,), _ = self._find(self._black(frames_1HWC))
        margins = [min(at - low, high - at) for at, (low, high) in zip(white, self.RANGE, strict=True)]
        return min(margins) >= self.ROOM and bool(abs(white[0] - black[0]) >= self.APART)

    def see(self, clips_BTHWC: np.ndarray) -> Motion:
        centre_BT2, area_BT = self._find(self._white(clips_BTHWC))
        speed_B2 = np.median(np.diff(centre_BT2, axis=1), axis=1)  # one blow that throws a boxer back does not count
        return {
            "to the right, pixels a frame": speed_B2[:, 0],
            "down, pixels a frame": speed_B2[:, 1],
            "of the boxer left": area_BT[:, -1] / area_BT[:, 0],
        }

    def judge(self, motion: Motion) -> np.ndarray:
        right, down, left = motion.values()
        sideways = np.where(right > 0, 0, 1)
        moved = np.where(np.abs(right) > np.abs(down), sideways, np.where(down < 0, 2, 3))
        shown = np.where(np.maximum(np.abs(right), np.abs(down)) < self.MOVES, 4, moved)
        return np.where(left < self.GONE, -1, shown)

    def _white(self, frames: np.ndarray) -> np.ndarray:
        return np.clip((frames.min(-1) - 100.0) / 80, 0, 1)

    def _black(self, frames: np.ndarray) -> np.ndarray:
        return np.clip((90.0 - frames.max(-1)) / 60, 0, 1)

    def _find(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre (column, row) `[..., 2]` and area in pixels `[...]` of what is in the ring; `share`: of each pixel."""
        rows, columns = self.RING
        inside = share[..., rows, columns]
        area = inside.sum((-2, -1)) + 1e-6
        across = (inside.sum(-2) * np.arange(columns.start, columns.stop)).sum(-1) / area
        down = (inside.sum(-1) * np.arange(rows.start, rows.stop)).sum(-1) / area
        return np.stack([across, down], axis=-1), area


class CoinRun(World):
    """The camera stays on the player: running moves the level sideways, a jump moves it down and up again."""

    game, frame_skip = "procgen/coinrun", 1
    interval, steps = 1, 8
    holds: ClassVar = {"right": ("RIGHT",), "left": ("LEFT",), "jump": ("UP",), "nothing": ("NOTHING",)}
    mirrored = 1, 0, 2, 3
    rest = ("NOTHING",), 20  # in which a player lands, from a jump, too
    lead = 10, 30

    BRIGHT = 60.0  # grey level above which there are walls and crates, and the player,
    FREE = (slice(27, 34), slice(18, 29)), (slice(27, 34), slice(36, 47)), (slice(12, 27), slice(29, 36))
    FULL = (
        0.03  # share of bright pixels in these places, left, right and above the player, from which they are not free
    )
    MOST = 7  # pixels of a shift between two frames
    RUNS = 0.5  # pixels a frame, mean
    JUMPS = 3.0  # pixels above the start

    def is_free(self, game: Game, frame_HWC: np.ndarray) -> bool:
        bright_HW = frame_HWC.mean(-1) > self.BRIGHT
        return all(bright_HW[place].mean() < self.FULL for place in self.FREE)

    def see(self, clips_BTHWC: np.ndarray) -> Motion:
        moved_BT2 = self._shifts(clips_BTHWC.astype(np.float32).mean(-1))
        return {
            "to the right, pixels a frame": -moved_BT2[..., 1].mean(1),
            "height of the jump, pixels": np.maximum(moved_BT2[..., 0].cumsum(1).max(1), 0.0),
        }

    def judge(self, motion: Motion) -> np.ndarray:
        right, height = motion.values()
        runs = np.where(right > 0, 0, 1)
        return np.where(height > self.JUMPS, 2, np.where(np.abs(right) > self.RUNS, runs, 3))

    def _shifts(self, grey_BTHW: np.ndarray) -> np.ndarray:
        """By how much the level moved down and to the right from frame to frame, `[B, T − 1, 2]`: the shift under which
        two frames differ least, where both show the level; the player himself is left out."""
        side, inner = grey_BTHW.shape[-1], slice(self.MOST, -self.MOST)
        weight = np.ones((side, side), np.float32)
        weight[26:38, 28:37] = 0
        weight = weight[inner, inner]
        before, after = grey_BTHW[:, :-1], grey_BTHW[:, 1:]
        shifts = [(y, x) for y in range(-self.MOST, self.MOST + 1) for x in range(-self.MOST, self.MOST + 1)]
        differences = []
        for y, x in shifts:
            there = after[..., self.MOST + y : side - self.MOST + y, self.MOST + x : side - self.MOST + x]
            differences.append((np.abs(before[..., inner, inner] - there) * weight).mean((-2, -1)))
        return np.array(shifts)[np.stack(differences).argmin(0)]


WORLDS: dict[str, tuple[World, str]] = {
    "doom": (Doom(), "actions"),
    "boxing": (Boxing(), "actions-boxing"),
    "coinrun": (CoinRun(), "actions-coinrun"),
}
