"""Whether a world is found again by a look back: turn away in Doom, turn back, compare with the view before.

    python benchmarks/look_back.py doom --out OUT

A player walks about, begins to turn left, and from then on turns all the way round; or a quarter or half a turn to the
left and back; or glances to the left and back, which the window still holds. The model is given the last frames before
and the same keys. What it shows after the turn is compared with the last frame given, beside the engine's own view
after the same keys and the views of other starts. The model's turns are not exactly the engine's, so the best of the
frames within `AROUND` tics of the turn's end counts.

The rule, written before looking: *confirmed* if the second row's gain in correlation over the window has a 95 %
interval above 0 after a whole turn and after one of the two that come back; *refuted* if that interval reaches 0 in all
three; else *cannot tell*.

Compared: the plain window, and the rules by which kept frames (`FrameMemory`) are seen at consecutive positions (the
library's), at true ones, or spread over the window by their distance. Prints tables, writes look_back.json and .png.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from held_actions import Doom
from magi_video import MagiVideoPipeline
from magi_video.exposure.memory import FrameMemory
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.files.atomic import write_json
from magi_video.recordings.environments import Game, open_game
from magi_video.recordings.walker import player
from magi_video.sampling.sampling import Sampling
from magi_video.video.image import contact_sheet, fit_frames, write_image

AROUND = 8
"""Tics before and after the end of a turn."""
ROUND = range(96, 118)
"""Tics among which a full turn ends."""
TURNS = {"round": None, "half and back": 52, "quarter and back": 26, "glance and back": 10}
"""Tics to the left, and as many back; None: all the way round."""
BEGUN = 16
"""Tics of turning before: the first ones are slower."""
MOST_WALKED = 800
"""Tics until a player is where the walls are not near."""


class Row(NamedTuple):
    """What is kept in sight, as fields of `Sampling`, and where it is seen."""

    keeps: dict[str, int]
    rule: str = "consecutive"


class EpisodeOverError(Exception):
    pass


def true(frames: list[int]) -> list[float]:
    """At true distances, however far beyond those of training."""
    return [float(frame) for frame in frames]


def spread(frames: list[int]) -> list[float]:
    """The latest frames as they are; the others over the rest of the window, in proportion to their distances."""
    first = next(i for i in range(len(frames)) if frames[-1] - frames[i] == len(frames) - 1 - i)
    places, edge = frames[-1] - len(frames) + 1, frames[first]
    older = [edge - 1 - (edge - 1 - at) * (first - 1) / max(edge - 1 - frames[0], 1) for at in frames[:first]]
    return [*(max(at, places) for at in older), *map(float, frames[first:])]


RULES: dict[str, Callable[[list[int]], Any]] = {
    "consecutive": FrameMemory.positions, "true": true, "spread": spread,
}  # fmt: skip
KEEPS = {"sink_frames": 4, "strided_frames": 4, "past_stride": 8}
ROWS = {
    "window": Row({}),
    "sink 4, every 8th of 4": Row(KEEPS),
    "same, true positions": Row(KEEPS, "true"),
    "same, spread positions": Row(KEEPS, "spread"),
    "sink 4": Row({"sink_frames": 4}),
    "every 16th of 7": Row({"strided_frames": 7, "past_stride": 16}),
    "every 4th of 8": Row({"strided_frames": 8, "past_stride": 4}),
}
"""The second one is asked about, the others are looked at."""


@contextmanager
def seen_by(rule: str) -> Iterator[None]:
    """Kept frames are seen at the positions of a rule."""
    before = FrameMemory.positions
    FrameMemory.positions = staticmethod(RULES[rule])  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        FrameMemory.positions = staticmethod(before)  # type: ignore[method-assign]


def keys(tics: int | None) -> list[str]:
    """What is held in each tic of a turn, and of some more."""
    if tics is None:
        return ["TURN_LEFT"] * (ROUND.stop + AROUND)
    return ["TURN_LEFT"] * tics + ["TURN_RIGHT"] * (tics + AROUND)


def play(seed: int, given: int, step: int, size: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """A player's views, uint8 `[given + …, H, W, 3]` for each turn, `step` tics apart, the last given that before it.

    None where no place is free, or the goal is reached before.
    """
    world, random = Doom(), np.random.default_rng([seed, 2])
    game = open_game(world.game, world.frame_skip)
    try:
        frame = game.reset(seed)
        explorer = player(game.actions, [seed, 0, 2], world.frame_skip)
        walked, least = 0, int(random.integers(60, 160))
        while walked < least or not world.is_free(game, frame):
            if walked == MOST_WALKED or (moved := game.step(explorer.act(frame, game.around()))) is None:
                return None
            frame, walked = moved, walked + 1
        for _ in range(world.rest[1]):
            press(game, "")
        views: dict[str, np.ndarray] = {}
        for turn, tics in TURNS.items():
            made = [press(game, "TURN_LEFT") for _ in range(BEGUN)]
            made = made[-1 - (given - 1) * step :] + [press(game, name) for name in keys(tics)]
            views[turn] = fit_frames(np.stack(made[::step]), *size)
        return views
    except EpisodeOverError:
        return None
    finally:
        game.close()


def press(game: Game, button: str) -> np.ndarray:
    """The view after a tic in which a button is held."""
    frame = game.step(np.array([name == button for name in game.actions.names], dtype=np.float32))
    if frame is None:
        raise EpisodeOverError
    return frame


def look(frames: np.ndarray) -> np.ndarray:
    """What is compared: grey, without the weapon and the status bar."""
    return frames[..., Doom.VIEW, :, :].astype(np.float32).mean(-1)


def likeness(frames: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Correlation of the grey of frames `[..., H, W]` with that of a view `[H, W]`."""
    frames, view = frames - frames.mean((-2, -1), keepdims=True), view - view.mean()
    return (frames * view).sum((-2, -1)) / np.sqrt((frames**2).sum((-2, -1)) * (view**2).sum() + 1e-6)


def score(after_BTHWC: np.ndarray, before_BHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Of the frames around the end of a turn, the best of each start, `[B]`: PSNR (dB) and correlation with the view
    before, and whether that view is the most like them among those of all starts."""
    after, before = look(after_BTHWC), look(before_BHWC)
    error = ((after_BTHWC.astype(np.float32) - before_BHWC[:, None])[:, :, Doom.VIEW] ** 2).mean((2, 3, 4)).min(1)
    alike = np.array([[likeness(one, view).max() for view in before] for one in after])
    own = np.diag(alike)
    return {"psnr": 10 * np.log10(255**2 / (error + 1e-6)), "correlation": own, "found": own >= alike.max(1)}


@torch.no_grad()
def roll(
    pipe: MagiVideoPipeline, row: Row, views: np.ndarray, pressed: list[str], given: int, step: int, speed: str
) -> np.ndarray:
    """The model's frames `[B, given + …, H, W, 3]` under the keys of a turn."""
    names, buttons = pipe.config.action_names, ["TURN_LEFT"] * given + pressed[step - 1 :: step]
    actions = np.array([[name == button for name in names] for button in buttons], dtype=np.float32)
    actions = actions[: views.shape[1]]
    sampling = Sampling.of(speed, **row.keeps)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(views))]
    with seen_by(row.rule):
        made = pipe(
            video=views[:, :given], num_frames=views.shape[1], interval=step, actions=actions, sampling=sampling,
            generator=seeds, output_type="np",
        )  # fmt: skip
    return (np.asarray(made.frames) * 255).round().astype(np.uint8)


def starting_views(options: argparse.Namespace, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """`play` of so many starts, `[B, given + …, H, W, 3]` by turn; kept in OUT."""
    kept = options.out / f"views-{options.starts}-{options.first_seed}-{options.given}-{options.interval}.npz"
    if not kept.exists():
        starts: list[dict[str, np.ndarray]] = []
        seed = options.first_seed
        while len(starts) < options.starts:
            if (views := play(seed, options.given, options.interval, size)) is not None:
                starts.append(views)
            seed += 1
        views_of: dict[str, Any] = {turn: np.stack([one[turn] for one in starts]) for turn in TURNS}
        np.savez_compressed(kept, **views_of)
    return dict(np.load(kept))


def interval(values: np.ndarray, digits: int = 3) -> list[float]:
    """Mean of one value a start with its 95 % interval (bootstrap over starts)."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    return [round(float(value), digits) for value in (values.mean(), low, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=50_000)
    parser.add_argument("--given", type=int, default=4, help="frames before the turn")
    parser.add_argument("--interval", type=int, default=2, help="tics from one frame to the next")
    parser.add_argument("--speed", default="balanced")
    parser.add_argument("--turns", nargs="+", choices=TURNS, default=list(TURNS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    use_fast_float32()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pipe, given, step = MagiVideoPipeline.from_pretrained(options.model), options.given, options.interval
    pipe.set_progress_bar_config(disable=True)
    seen = starting_views(options, (pipe.config.height, pipe.config.width))
    full, around = seen["round"].astype(np.float32), -(-AROUND // step)
    errors = ((full[:, given:] - full[:, given - 1 : given]) ** 2).mean((0, 2, 3, 4))
    ends = np.arange(ROUND.start // step, ROUND.stop // step)
    whole = int(ends[errors[ends - 1].argmin()])
    figures: dict[str, Any] = {name: getattr(options, name) for name in ("starts", "given", "interval", "speed")}
    figures |= {"frames of a whole turn": whole}
    print(figures, flush=True)
    sheets: list[np.ndarray] = []
    for turn in options.turns:
        views, tics = seen[turn], TURNS[turn]
        end = given - 1 + (whole if tics is None else 2 * tics // step)
        near, before = slice(end - around, end + around + 1), views[:, given - 1]
        scores = {
            "engine": score(views[:, near], before), "another start": score(np.roll(views, 1, 0)[:, near], before)
        }  # fmt: skip
        scores["another start"]["found"] = np.full(len(views), 1 / len(views))  # by chance
        columns = np.linspace(given - 1, end, 9).round().astype(int)
        sheets += list(views[:3, columns])
        for name in options.rows:
            began = time.thread_time()
            made = roll(pipe, ROWS[name], views, keys(tics), given, step, options.speed)
            scores[name] = score(made[:, near], before) | {"seconds": np.array([time.thread_time() - began])}
            sheets += list(made[:3, columns])
            np.save(options.out / f"{turn} {name}.npy".replace(" ", "_").replace(",", ""), made[:, near])
            print(turn, name, {key: round(float(value.mean()), 3) for key, value in scores[name].items()}, flush=True)
        figures[turn] = {
            name: {key: interval(value.astype(float)) for key, value in one.items()} for name, one in scores.items()
        }
        for name in options.rows[1:]:
            gain = {key: scores[name][key].astype(float) - scores["window"][key] for key in ("psnr", "correlation")}
            figures[turn][name] |= {f"{key}, gain over the window": interval(value) for key, value in gain.items()}
        write_json(options.out / "look_back.json", figures)
        write_image(options.out / "look_back.png", contact_sheet(sheets, columns=9, max_frames=9))


if __name__ == "__main__":
    main()
