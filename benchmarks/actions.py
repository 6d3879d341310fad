"""Whether a world model does what it is told: hold an action from many first frames, and look at what moves.

    python benchmarks/actions.py doom --world doom --out docs/control
    python benchmarks/actions.py atari --world boxing --out docs/control
    python benchmarks/actions.py coinrun --world coinrun --out docs/control

The engine and the model begin from the same frames, which a player may leave in every direction, and hold the same
action. Two judges say which action each clip shows; both see real clips through the model's codec:
- motion: what moves is measured, and the action is read from it by a fixed rule (`Doom`, `Boxing`, `CoinRun`);
- a probe: a small convolutional network that was trained on other real clips of held actions (inverse dynamics).
Prints a table, writes NAME.json and NAME.png (NAME: "actions", "actions-boxing", …). A new world is a class like `Doom`
in `held_actions.py`.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from held_actions import WORLDS, World
from magi_video import MagiVideoPipeline
from magi_video.experiments.inverse import fit, inverse_network
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.files.atomic import write_json
from magi_video.recordings.environments import open_game
from magi_video.recordings.walker import player
from magi_video.video.image import contact_sheet, fit_frames, to_model_range, to_uint8, write_image


class EpisodeOverError(Exception):
    pass


def play(world: World, seed: int, holds: Sequence[str], size: tuple[int, int]) -> list[np.ndarray]:
    """The clips of an episode, uint8 `[steps + 1, H, W, 3]`: each hold in turn, from a place that is free.

    Fewer where the episode ends before. The same seed gives the same first beginning whatever is held there, so holds
    from one beginning are played in an episode each.
    """
    game, random = open_game(world.game, world.frame_skip), np.random.default_rng([seed, 1])
    names = list(game.actions.names)

    def press(buttons: tuple[str, ...]) -> np.ndarray:
        return np.isin(names, buttons).astype(np.float32)

    def step(vector: np.ndarray) -> np.ndarray:
        frame = game.step(vector)
        if frame is None:
            raise EpisodeOverError
        return frame

    clips: list[np.ndarray] = []
    try:
        frame = game.reset(seed)
        explorer = player(game.actions, [seed, 0, 1], world.frame_skip)
        with suppress(EpisodeOverError):
            for hold in holds:
                while True:
                    for _ in range(int(random.integers(*world.lead))):
                        frame = step(explorer.act(frame, game.around()))
                    for _ in range(world.rest[1]):
                        frame = step(press(world.rest[0]))
                    if world.is_free(game, frame):
                        break
                kept = [frame]
                for tic in range(1, world.interval * world.steps + 1):
                    frame = step(press(world.holds[hold]))
                    if tic % world.interval == 0:
                        kept.append(frame)
                clips.append(fit_frames(np.stack(kept), *size))
        return clips
    finally:
        game.close()


def play_many(world: World, episodes: range, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clips of random holds, uint8 `[B, T, H, W, 3]`, and the holds' numbers `[B]`."""
    clips, numbers = [], []
    for seed in episodes:
        holds = np.random.default_rng(seed).integers(len(world.holds), size=12)
        played = play(world, seed, [list(world.holds)[hold] for hold in holds], size)
        clips += played
        numbers += holds[: len(played)].tolist()
    return np.stack(clips), np.array(numbers)


def play_starts(world: World, starts: int, size: tuple[int, int]) -> np.ndarray:
    """Every hold from each of so many beginnings, uint8 `[starts, holds, T, H, W, 3]`."""
    kept: list[np.ndarray] = []
    seed = 0
    while len(kept) < starts:
        clips = [play(world, seed, [hold], size) for hold in world.holds]
        if all(clips):
            assert all(np.array_equal(clip[0][0], clips[0][0][0]) for clip in clips), "one beginning for all holds"
            kept.append(np.stack([clip[0] for clip in clips]))
        seed += 1
    return np.stack(kept)


@torch.no_grad()
def through_codec(pipe: MagiVideoPipeline, clips_BTHWC: np.ndarray) -> np.ndarray:
    """What the model could show at best of real clips."""
    parts = np.array_split(clips_BTHWC, -(-len(clips_BTHWC) // 8))
    return np.concatenate([to_uint8(pipe.codec.decode(pipe.codec.encode(to_model_range(part)))) for part in parts])


class Probe(nn.Module):
    """Which action is held in a clip: a network sees two frames `APART` from each other, and its verdicts on all such
    pairs of the clip are averaged."""

    APART = 2

    def __init__(self, holds: int) -> None:
        super().__init__()
        self.net = inverse_network(holds)

    def forward(self, clips_BTHWC: np.ndarray) -> Tensor:
        frames_BTCHW = to_model_range(clips_BTHWC)
        before, after = frames_BTCHW[:, : -self.APART], frames_BTCHW[:, self.APART :]
        logits = self.net(torch.cat([before, after, after - before], dim=2).flatten(0, 1))
        return logits.unflatten(0, before.shape[:2]).mean(1)


def train_probe(world: World, clips_BTHWC: np.ndarray, numbers: np.ndarray, steps: int) -> Probe:
    """Trained on single pairs, half of them as in a mirror."""
    torch.manual_seed(0)
    probe, random = Probe(len(world.holds)), np.random.default_rng(0)

    def loss() -> Tensor:
        picked = random.integers(len(clips_BTHWC), size=64)
        first = random.integers(clips_BTHWC.shape[1] - probe.APART, size=64)
        parts, asked = clips_BTHWC[picked[:, None], first[:, None] + np.arange(probe.APART + 1)], numbers[picked]
        parts[32:], asked[32:] = parts[32:, :, :, ::-1].copy(), np.array(world.mirrored)[asked[32:]]
        return F.cross_entropy(probe(parts), torch.from_numpy(asked))

    fit(probe, loss, steps)
    return probe


def share(right: np.ndarray) -> list[float]:
    """A share with its 95 % interval (Wilson)."""
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return [round(float(value), 3) for value in (right.mean(), low, high)]


@torch.no_grad()
def measure(world: World, clips_BTHWC: np.ndarray, numbers: np.ndarray, probe: Probe) -> dict[str, Any]:
    """Of clips under the holds of these numbers: what moved on average, and the share in which each judge sees the
    hold, with the number of clips in which it sees each of the others."""
    motion = world.see(clips_BTHWC)
    judged = {"motion": world.judge(motion), "probe": probe(clips_BTHWC).argmax(-1).numpy()}
    names = [*world.holds, "none"]
    result: dict[str, Any] = {}
    for number, hold in enumerate(world.holds):
        held = numbers == number
        result[hold] = {"clips": int(held.sum())}
        result[hold] |= {name: round(float(values[held].mean()), 3) for name, values in motion.items()}
        for judge, found in judged.items():
            seen = np.bincount(found[held] % len(names), minlength=len(names)).tolist()  # −1 is the last
            result[hold] |= {judge: share(found[held] == number)}
            result[hold] |= {f"{judge} sees": dict(zip(names, seen, strict=True))}
    return result | {f"{judge}, all": share(found == numbers) for judge, found in judged.items()}


def table(world: World, results: dict[str, dict[str, Any]]) -> str:
    """Shares with their intervals, then mean motions in the order of the holds; Markdown, a column for each result."""
    rows = [["", *results], ["---"] * (1 + len(results))]
    for judge in ("motion", "probe"):
        for hold in world.holds:
            shares = [result[hold][judge] for result in results.values()]
            rows.append([f"{judge}: {hold}", *(f"{at:.2f} ({low:.2f} to {high:.2f})" for at, low, high in shares)])
    holds = [[result[hold] for hold in world.holds] for result in results.values()]
    for name in (name for name, value in holds[0][0].items() if isinstance(value, float)):
        rows.append([name, *(", ".join(f"{hold[name]:.3f}" for hold in part) for part in holds)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--world", choices=WORLDS, default="doom")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=64, help="of real play for the probe, a quarter held out")
    parser.add_argument("--probe-steps", type=int, default=300)
    parser.add_argument("--setting", default="balanced")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0], help="of guidance by the action")
    options = parser.parse_args()
    use_fast_float32()
    world, name = WORLDS[options.world]
    pipe = MagiVideoPipeline.from_pretrained(options.model)
    size = pipe.config.height, pipe.config.width

    split, seeds = options.episodes * 3 // 4, range(10_000, 10_000 + options.episodes)
    clips, numbers = play_many(world, seeds[:split], size)
    probe = train_probe(world, through_codec(pipe, clips), numbers, options.probe_steps)
    results = {}

    def note(what: str, clips_BTHWC: np.ndarray, numbers: np.ndarray) -> None:
        results[what] = measure(world, clips_BTHWC, numbers, probe)
        print(what, {judge: results[what][f"{judge}, all"] for judge in ("motion", "probe")}, flush=True)

    held_out, numbers = play_many(world, seeds[split:], size)
    note("real, held out", through_codec(pipe, held_out), numbers)
    engine_BATHWC = play_starts(world, options.starts, size)
    numbers = np.tile(np.arange(len(world.holds)), options.starts)
    truth = through_codec(pipe, engine_BATHWC.reshape(-1, *engine_BATHWC.shape[2:]))
    note("engine", truth, numbers)
    shown = [truth[: len(world.holds), ::2]]  # of the first start
    told_MA = np.stack([pipe.action(*world.holds[hold]) for hold in world.holds])[numbers]
    for scale in options.scales:
        frames = pipe(
            video=engine_BATHWC[:, :, :1].reshape(-1, 1, *size, 3),
            num_frames=world.steps + 1,
            interval=world.interval,
            sampling=options.setting,
            actions=[told_MA] * (world.steps + 1),
            guidance_scale=scale,
            guide=("action",),
            generator=[torch.Generator().manual_seed(at // len(world.holds)) for at in range(len(numbers))],
        ).frames
        made_BTHWC = (frames * 255).round().astype(np.uint8)
        note(f"model, guidance {scale:g}", made_BTHWC, numbers)
        shown.append(made_BTHWC[: len(world.holds), 2::2])
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    write_json(options.out / f"{name}.json", {"settings": settings, "results": results})
    print(table(world, results))
    rows_ATHWC, made = np.concatenate(shown, axis=1), list(range(2, world.steps + 1, 2))
    numbered = [0, *made, *made * len(options.scales)]
    labels = [
        f"{hold}: engine" + "".join(f", model with guidance {s:g}" for s in options.scales) for hold in world.holds
    ]
    tiles = len(numbered)
    sheet = contact_sheet(list(rows_ATHWC), labels=labels, numbers=numbered, columns=tiles, max_frames=tiles)
    write_image(options.out / f"{name}.png", sheet)


if __name__ == "__main__":
    main()
