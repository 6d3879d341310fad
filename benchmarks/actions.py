"""Whether a model of Doom does what it is told: hold an action from many first frames, and look at what moves.

    python benchmarks/actions.py doom --out docs/control

The engine and the model begin from the same frames and hold the same action. Two measures, the same for both:
- turning: the horizontal shift of the picture by phase correlation; turning left moves it to the right;
- a probe, a small convolutional network that was trained on pairs of real frames (through the model's codec, as all
  frames here) to tell which action led from one to the other.
Writes actions.json and actions.png.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video import MagiPipeline
from magi_video.data.explorer import Explorer
from magi_video.data.files import write_json
from magi_video.data.games import open_game
from magi_video.data.image import contact_sheet, fit_frames, to_model_range, to_uint8, write_image
from magi_video.precision import use_fast_float32

HOLDS: dict[str, tuple[str, ...]] = {
    "turn left": ("TURN_LEFT",),
    "turn right": ("TURN_RIGHT",),
    "forward": ("MOVE_FORWARD",),
    "nothing": (),
}
INTERVAL, STEPS = 2, 8  # tics between frames, frames that follow the first
LARGEST = 16  # pixels of a shift between two frames
VIEW = slice(6, 46)  # rows without the weapon and the status bar
STILL = 0.5  # pixels a frame


def play(game_name: str, seed: int, lead: int, holds: list[str]) -> list[np.ndarray]:
    """An episode: `lead` tics of the explorer, then each hold in turn; uint8 `[STEPS + 1, 64, 64, 3]` of every hold.

    The same seed and lead give the same first frame, so holds from one beginning are played in an episode each.
    """
    game = open_game(game_name)
    try:
        names = game.actions.names
        frame: np.ndarray | None = game.reset(seed)
        explorer = Explorer(game.actions, [seed, 0, 1], 1)
        for _ in range(lead):
            assert frame is not None
            frame = game.step(explorer.act(fit_frames(frame[None], 64, 64)[0], game.room()))
            if frame is None:
                return []
        clips = []
        for hold in holds:
            vector = np.zeros(len(names), np.float32)
            for name in HOLDS[hold]:
                vector[list(names).index(name)] = 1
            kept = [frame]
            for tic in range(1, INTERVAL * STEPS + 1):
                frame = game.step(vector)
                if frame is None:
                    return clips
                if tic % INTERVAL == 0:
                    kept.append(frame)
            clips.append(fit_frames(np.stack(kept), 64, 64))
        return clips
    finally:
        game.close()


@torch.no_grad()
def through_codec(pipe: MagiPipeline, clips_BTHWC: np.ndarray) -> np.ndarray:
    """What the model could show at best of real clips."""
    parts = [
        pipe.codec.decode(pipe.codec.encode(to_model_range(part)))
        for part in np.array_split(clips_BTHWC, -(-len(clips_BTHWC) // 8))
    ]
    return to_uint8(torch.cat(parts))


def shifts(clips_BTHWC: np.ndarray) -> np.ndarray:
    """Mean shift to the right between neighbouring frames, pixels, `[B]`: the peak of the phase correlation."""
    grey_BTHW = clips_BTHWC[:, :, VIEW].astype(np.float32).mean(-1)
    window = np.hanning(grey_BTHW.shape[2])[:, None] * np.hanning(grey_BTHW.shape[3])
    spectrum = np.fft.fft2((grey_BTHW - grey_BTHW.mean((2, 3), keepdims=True)) * window)
    cross = spectrum[:, 1:] * spectrum[:, :-1].conj()
    surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-6)).real
    rows = surface[:, :, [0, 1, -1]].max(axis=2)  # level, but for a pixel
    candidates = np.r_[0 : LARGEST + 1, -LARGEST:0]
    return candidates[rows[..., candidates].argmax(axis=-1)].mean(axis=1)


class Probe(nn.Module):
    """Two frames → which action led from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((9, 24), (24, 48), (48, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, len(HOLDS)))

    def forward(self, pairs_M2HWC: np.ndarray) -> Tensor:
        before, after = to_model_range(pairs_M2HWC).unbind(1)
        return self.net(torch.cat([before, after, after - before], dim=1))


def pairs(clips_BTHWC: np.ndarray) -> np.ndarray:
    """Neighbouring frames, but for the first: the motion of before is still in it. `[B · (STEPS − 1), 2, H, W, C]`."""
    return np.stack([clips_BTHWC[:, 1:-1], clips_BTHWC[:, 2:]], axis=2).reshape(-1, 2, *clips_BTHWC.shape[2:])


def train_probe(clips_BTHWC: np.ndarray, holds: list[str], steps: int) -> Probe:
    torch.manual_seed(0)
    probe, random = Probe(), np.random.default_rng(0)
    inputs, labels = pairs(clips_BTHWC), np.repeat([list(HOLDS).index(hold) for hold in holds], STEPS - 1)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        picked = random.integers(len(inputs), size=64)
        loss = F.cross_entropy(probe(inputs[picked]), torch.from_numpy(labels[picked]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.eval()


@torch.no_grad()
def measure(clips: dict[str, np.ndarray], probe: Probe) -> dict[str, Any]:
    """Of clips `[B, T, H, W, 3]` under each hold: shifts, and the share that shows the hold."""
    result: dict[str, Any] = {}
    for number, (hold, held_BTHWC) in enumerate(clips.items()):
        moved = shifts(held_BTHWC[:, 1:])
        found = probe(pairs(held_BTHWC)).argmax(-1)
        told = {"turn left": moved > STILL, "turn right": moved < -STILL}.get(hold, np.abs(moved) <= STILL)
        result[hold] = {
            "clips": len(held_BTHWC),
            "shift": round(float(moved.mean()), 2),
            "shift_as_told": round(float(told.mean()), 3),
            "probe_accuracy": round(float((found == number).float().mean()), 3),
        }
    turns = ("turn left", "turn right")
    result["turning_sign_accuracy"] = float(np.mean([result[turn]["shift_as_told"] for turn in turns]))
    result["probe_accuracy"] = float(np.mean([result[hold]["probe_accuracy"] for hold in HOLDS]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--game", default="vizdoom/my_way_home")
    parser.add_argument("--starts", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=64, help="of real play for the probe, a quarter held out")
    parser.add_argument("--probe-steps", type=int, default=600)
    parser.add_argument("--setting", default="balanced")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0], help="of guidance by the action")
    options = parser.parse_args()
    use_fast_float32()
    pipe = MagiPipeline.from_pretrained(options.model)

    random = np.random.default_rng(0)
    played = []
    for episode in range(options.episodes):
        holds = [str(hold) for hold in random.choice(list(HOLDS), size=8)]
        clips = play(options.game, 10_000 + episode, int(random.integers(20, 120)), holds)
        played.append(list(zip(clips, holds, strict=False)))
    split = options.episodes * 3 // 4
    learned, held_out = ([one for episode in part for one in episode] for part in (played[:split], played[split:]))
    probe = train_probe(
        through_codec(pipe, np.stack([clip for clip, _ in learned])),
        [hold for _, hold in learned],
        options.probe_steps,
    )
    kept = {hold: [clip for clip, other in held_out if other == hold] for hold in HOLDS}
    real = {hold: through_codec(pipe, np.stack(clips)) for hold, clips in kept.items()}
    results = {"real, held out": measure(real, probe)}
    print("probe:", results["real, held out"], flush=True)

    engine: dict[str, list[np.ndarray]] = {hold: [] for hold in HOLDS}
    seed = 0
    while len(engine["nothing"]) < options.starts:
        lead = int(np.random.default_rng([1, seed]).integers(20, 120))
        clips = [play(options.game, seed, lead, [hold]) for hold in HOLDS]
        if all(clips):
            assert all(np.array_equal(clip[0][0], clips[0][0][0]) for clip in clips), "one beginning for all holds"
            for hold, clip in zip(HOLDS, clips, strict=True):
                engine[hold].append(clip[0])
        seed += 1
    truth = {hold: through_codec(pipe, np.stack(clips)) for hold, clips in engine.items()}
    results["engine"] = measure(truth, probe)
    print("engine:", results["engine"], flush=True)
    sheet = [truth["turn left"][0]]
    labels = ["engine, turn left"]
    for scale in options.scales:
        made = {}
        for hold, names in HOLDS.items():
            frames = pipe(
                video=np.stack(engine[hold])[:, :1],
                num_frames=STEPS + 1,
                interval=INTERVAL,
                setting=options.setting,
                actions=[pipe.action(*names)] * (STEPS + 1),
                guidance_scale=scale,
                guide=("action",),
                generator=[torch.Generator().manual_seed(seed) for seed in range(options.starts)],
            ).frames
            made[hold] = (frames * 255).round().astype(np.uint8)
            sheet.append(made[hold][0])
            labels.append(f"model, {hold}, guidance {scale:g}")
        results[f"model, guidance {scale:g}"] = measure(made, probe)
        print(scale, results[f"model, guidance {scale:g}"], flush=True)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    write_json(options.out / "actions.json", {"settings": settings | {"interval": INTERVAL}, "results": results})
    write_image(options.out / "actions.png", contact_sheet(sheet, labels=labels, columns=STEPS + 1))


if __name__ == "__main__":
    main()
