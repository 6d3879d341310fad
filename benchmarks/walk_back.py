"""Whether a world is found again by a walk back in CoinRun: run away from a place, wait, run back, compare the views.

    python benchmarks/walk_back.py coinrun --out OUT

A player stands still, runs to the left, waits, and runs to the right until the engine itself shows the place again;
or runs four steps to the left and back, which the window still holds. What has left the picture on the right comes
back into it. The model is given the first frames, or these and the true frames of the way out and of the wait, and the
same keys throughout. What it shows on the way back is compared with the last view of the place, beside the engine's own
view and that of another start. The model's steps are not exactly the engine's, so the best frame of the way back is
taken. All levels look alike (ground below, sky above), so what is compared is how a view differs from the mean view of
all starts.

The rule, written before looking: memory *helps* a model if the second row's gain in correlation over the window has a
95 % interval above 0 where the way out is given; it *does not* if that interval reaches 0. Training that shows a sparse
past helps if that gain is larger than that of the same model trained on by as many steps without, again with an
interval above 0 (--against, on the same starts).

Rows, and what is kept: `look_back.py`. Prints tables, writes walk_back.json and walk_back.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from look_back import ROWS, EpisodeOverError, Row, interval, likeness, press, seen_by
from magi_video import MagiVideoPipeline
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.files.atomic import write_json
from magi_video.recordings.environments import Game, open_game
from magi_video.recordings.walker import player
from magi_video.sampling.sampling import Sampling
from magi_video.video.image import contact_sheet, write_image

GAME = "procgen/coinrun"
STOOD = 4
"""Frames in which the player stands before: what the model is given at least."""
PLACES = 6
"""Looked at in a level until one fits."""
REST = 16
"""Frames without a key, in which a player comes to a standstill."""
SAME, AWAY = 0.98, 0.6
"""Correlation of two views of the engine from which they are the same place, and up to which the place is left."""
GAIN = "correlation, gain over the window"


class Walk(NamedTuple):
    """Frames of the way out to the left, of the wait, and of the way back to the right; and frames that are given."""

    out: int
    wait: int
    back: int
    given: int = STOOD

    @property
    def keys(self) -> list[str]:
        return ["LEFT"] * self.out + ["NOTHING"] * self.wait + ["RIGHT"] * self.back


LONG, SHORT = Walk(12, 12, 16), Walk(4, 0, 8)
WALKS = {
    "way out given": LONG._replace(given=STOOD + LONG.out + LONG.wait),
    "all generated": LONG,
    "within the window": SHORT,
}
"""The first one is asked about; the third fits into the window of 16 frames."""
NAMES = {"long": LONG, "short": SHORT}
"""Of the walks of the engine, as they are kept in OUT."""


def play(seed: int) -> dict[Walk, np.ndarray] | None:
    """The engine's views of both walks from one place of a level, uint8 `[STOOD + …, 64, 64, 3]`.

    None where the level has no such place: to which the engine comes back, and which it had left.
    """
    for place in range(PLACES):
        try:
            long = walk(seed, place, LONG)
        except EpisodeOverError:
            return None
        alike = likeness(grey(long), grey(long[STOOD - 1]))
        if alike[STOOD - 1 + LONG.out] < AWAY and alike[-LONG.back :].max() > SAME:
            return {LONG: long, SHORT: walk(seed, place, SHORT)}
    return None


def walk(seed: int, place: int, asked: Walk) -> np.ndarray:
    """A walk from the given place of a level; the same seed leads to the same place."""
    game: Game = open_game(GAME)
    try:
        frame = game.reset(seed)
        explorer = player(game.actions, [seed, 0, 2])
        for _ in range(20 * (place + 1)):
            if (moved := game.step(explorer.act(frame, game.around()))) is None:
                raise EpisodeOverError
            frame = moved
        before = ["NOTHING"] * REST + ["RIGHT"] * LONG.out + ["NOTHING"] * REST
        views = [press(game, key) for key in before + asked.keys]
        return np.stack(views[len(before) - STOOD :])
    finally:
        game.close()


def starting_views(options: argparse.Namespace) -> dict[Walk, np.ndarray]:
    """`play` of so many levels, `[B, …]` by walk; kept in OUT."""
    kept = options.out / f"views-{options.starts}-{options.first_seed}.npz"
    if not kept.exists():
        starts: list[dict[Walk, np.ndarray]] = []
        seed = options.first_seed
        while len(starts) < options.starts:
            if (views := play(seed)) is not None:
                starts.append(views)
            seed += 1
        views_of: dict[str, Any] = {name: np.stack([one[of] for one in starts]) for name, of in NAMES.items()}
        np.savez_compressed(kept, **views_of)
    loaded = np.load(kept)
    return {of: loaded[name] for name, of in NAMES.items()}


def grey(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32).mean(-1)


def score(back_BTHWC: np.ndarray, before_BHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Of the frames of the way back, the best of each start, `[B]`: correlation with the view before, both as
    differences from the mean view of all starts; and whether that view is the most like them among those of all."""
    before = grey(before_BHWC)
    mean = before.mean(0)
    alike = np.array([[likeness(one, view).max() for view in before - mean] for one in grey(back_BTHWC) - mean])
    own = np.diag(alike)
    return {"correlation": own, "found": (own >= alike.max(1)).astype(float)}


@torch.no_grad()
def roll(pipe: MagiVideoPipeline, row: Row, asked: Walk, views: np.ndarray, speed: str) -> np.ndarray:
    """The model's frames `[B, STOOD + …, H, W, 3]` under the keys of a walk; the given ones are true."""
    pressed = ["NOTHING"] * STOOD + asked.keys
    actions = np.array([[name == key for name in pipe.config.action_names] for key in pressed], dtype=np.float32)
    sampling = Sampling.of(speed, **{"sink_frames": 0, "strided_frames": 0} | row.keeps)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(views))]
    with seen_by(row.rule):
        made = pipe(
            video=views[:, : asked.given], num_frames=len(pressed), interval=1, actions=actions, sampling=sampling,
            generator=seeds, output_type="np",
        )  # fmt: skip
    return (np.asarray(made.frames) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=70_000)
    parser.add_argument("--speed", default="realtime")
    parser.add_argument("--walks", nargs="+", choices=WALKS, default=list(WALKS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS)[:2])
    parser.add_argument("--name", default="walk_back", help="of the files that are written")
    parser.add_argument("--against", help="name of the files of another model, whose gains are compared")
    options = parser.parse_args()
    use_fast_float32()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pipe = MagiVideoPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    seen = starting_views(options)
    figures: dict[str, Any] = {"model": options.model, "starts": options.starts, "speed": options.speed}
    each: dict[str, list[float]] = {}
    other = json.loads((options.out / f"{options.against}.json").read_text())["each"] if options.against else {}
    sheets: list[np.ndarray] = []
    for name in options.walks:
        asked = WALKS[name]
        views = seen[asked._replace(given=STOOD)]
        before, back = views[:, STOOD - 1], slice(-asked.back, None)
        scores = {
            "engine": score(views[:, back], before),
            "another start": score(np.roll(views, 1, 0)[:, back], before),
        }
        columns = np.linspace(STOOD - 1, views.shape[1] - 1, 12).round().astype(int)
        sheets += list(views[:4, columns])
        for row in options.rows:
            made = roll(pipe, ROWS[row], asked, views, options.speed)
            scores[row] = score(made[:, back], before)
            sheets += list(made[:4, columns])
        figures[name] = {row: {key: interval(value) for key, value in one.items()} for row, one in scores.items()}
        for row in options.rows[1:]:
            gain = scores[row]["correlation"] - scores["window"]["correlation"]
            figures[name][row][GAIN] = interval(gain)
            each[f"{name}: {row}"] = gain.tolist()
            if before_gain := other.get(f"{name}: {row}"):
                figures[name][row][f"{GAIN}, less that of {options.against}"] = interval(gain - before_gain)
        print(name, json.dumps(figures[name], indent=1), flush=True)
    write_json(options.out / f"{options.name}.json", figures | {"each": each})
    write_image(options.out / f"{options.name}.png", contact_sheet(sheets, columns=12, max_frames=12))


if __name__ == "__main__":
    main()
