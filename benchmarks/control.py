"""Whether labels and text act, and what guidance does to that, in a world where all can be checked (shapes.py).

    python benchmarks/control.py label --out OUT
    python benchmarks/control.py movement --out OUT
    python benchmarks/control.py text --out OUT --encoder FOLDER

Makes the videos and trains a small model, minutes on one CPU core (the same command again goes on), generates from
nothing but the condition at several guidance scales, and looks: colours by the mean colour of what is bright,
directions by where its centre goes, classes and shapes by a probe, a small network that was trained on drawn videos.
Classes are warm and cool colours ("label") or the four directions ("movement"). "text" asks what a pretrained sentence
encoder gives, in 16×16 pixels; words that the model learns itself, in the world of `magi record shapes`, are measured
by text.py. Writes control_label.json and the like,
and a contact sheet.
"""

import argparse
import math
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import shapes
from magi_video import MagiVideoPipeline
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.files.atomic import write_json
from magi_video.recipe import CodecConfig, DataConfig, ExposureConfig, ModelConfig, Preset, TrainConfig
from magi_video.sampling.sampling import Sampling
from magi_video.training.run import train
from magi_video.video.image import contact_sheet, to_model_range, write_image

KINDS = {"label": "warmth", "movement": "direction", "text": "shape"}
"""What the class folders are, and what the probe judges."""
VIDEOS = 3000
BATCH = 64


def preset(kind: str, steps: int, encoder: str) -> Preset:
    """1.6 M parameters, 16 tokens a frame."""
    return Preset(
        data=DataConfig(height=shapes.SIDE, width=shapes.SIDE, num_frames=shapes.FRAMES, max_interval=1),
        codec=CodecConfig(codec="pixels"),
        model=ModelConfig(
            patch_size=4, hidden=128, depth=3, heads=4, mlp=512, head_width=128, head_depth=3,
            labels=kind != "text", text=kind == "text", text_tokens=8 if kind == "text" else ModelConfig.text_tokens,
            text_encoder=encoder or ModelConfig.text_encoder,
        ),
        exposure=ExposureConfig(diffusion_batch_mul=2),
        train=TrainConfig(
            steps=steps, batch_size=16, learning_rate=1e-3, warmup_steps=100, ema_decay=0.995, precision="bf16",
            workers=0, sample_every=0, checkpoint_every=250, keep_checkpoints=1,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


class Probe(nn.Module):
    """A frame, or for directions all of a video's → its shape or its class."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.frames = shapes.FRAMES if what == "direction" else 1  # no frame by itself shows a movement
        self.names = sorted({getattr(scene, what) for scene in shapes.scenes(held_out=False)})
        self.net = nn.Sequential(
            nn.Conv2d(3 * self.frames, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.SiLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, len(self.names)),
        )  # fmt: skip

    def seen(self, videos_BTHWC: np.ndarray) -> list[str]:
        """What each video shows, all frames together."""
        looks = to_model_range(videos_BTHWC).unflatten(1, (-1, self.frames)).flatten(2, 3)
        with torch.no_grad():
            logits = self.net(looks.flatten(0, 1)).unflatten(0, looks.shape[:2])
        return [self.names[index] for index in logits.log_softmax(-1).mean(1).argmax(-1)]


def train_probe(what: str, steps: int = 400) -> Probe:
    torch.manual_seed(0)
    probe, random = Probe(what), np.random.default_rng([1, 0])
    every = shapes.scenes(held_out=False) + shapes.scenes(held_out=True)
    scenes = [every[index] for index in random.integers(len(every), size=1500)]
    clips = []
    for scene in scenes:
        video, first = shapes.draw(scene, random), int(random.integers(shapes.FRAMES + 1 - probe.frames))
        clips.append(to_model_range(video[first : first + probe.frames]).flatten(0, 1))
    looks = torch.stack(clips)
    labels = torch.tensor([probe.names.index(getattr(scene, what)) for scene in scenes])
    optimizer = torch.optim.AdamW(probe.parameters(), lr=5e-3)
    for _ in range(steps):
        picked = random.integers(len(scenes), size=64)
        noisy = looks[picked] + 0.1 * torch.randn(64, *looks.shape[1:])
        loss = F.cross_entropy(probe.net(noisy), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe.eval()


def look(videos_BTHWC: np.ndarray, asked: list[shapes.Scene], probe: Probe) -> dict[str, Any]:
    """Shares of the videos that show what was asked for, with 95 % intervals; for labels how varied the rest is."""
    seen = {"colour": shapes.seen_colours(videos_BTHWC), "direction": shapes.seen_directions(videos_BTHWC)}
    by_probe = probe.seen(videos_BTHWC)
    result: dict[str, Any] = {"videos": len(asked)}
    if probe.what == "shape":
        seen["shape"] = by_probe
        right = {name: np.array([getattr(scene, name) for scene in asked]) == found for name, found in seen.items()}
        right["all three"] = np.all(list(right.values()), axis=0)
        return result | {name: share(found) for name, found in right.items()}
    by_rule = {"warmth": [shapes.warmth(colour) for colour in seen["colour"]], "direction": seen["direction"]}
    classes = np.array([getattr(scene, probe.what) for scene in asked])
    result["class by probe"] = share(classes == by_probe)
    result["class by rule"] = share(classes == by_rule[probe.what])
    return result | {f"bits of {name}": bits(seen[name]) for name in ("colour", "direction")}


def share(right: np.ndarray) -> list[float]:
    """Of what is true, with Wilson's 95 % interval."""
    count, mean, z = len(right), float(np.mean(right)), 1.96
    middle = (mean + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(mean * (1 - mean) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return [round(mean, 3), round(middle - half, 3), round(middle + half, 3)]


def bits(names: list[str]) -> float:
    """Entropy of their frequencies."""
    _, counts = np.unique(names, return_counts=True)
    shares = counts / counts.sum()
    return round(float(-(shares * np.log2(shares)).sum()), 2)


def generate(pipe: MagiVideoPipeline, asked: list[shapes.Scene], kind: str, scale: float) -> np.ndarray:
    """A video of each scene, from the condition alone; the same seeds at every scale."""
    made = []
    for first in range(0, len(asked), BATCH):
        scenes = asked[first : first + BATCH]
        told: dict[str, Any] = {"text": [scene.caption for scene in scenes]}
        if kind != "text":
            told = {"label": [pipe.config.class_names.index(getattr(scene, KINDS[kind])) for scene in scenes]}
        seeds = [torch.Generator().manual_seed(first + index) for index in range(len(scenes))]
        frames = pipe(
            num_frames=shapes.FRAMES, num_videos=len(scenes), guidance_scale=scale, generator=seeds, **told
        ).frames
        made.append((frames * 255).round().astype(np.uint8))
    return np.concatenate(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1250)
    parser.add_argument("--model", type=Path, help="a run that was trained before: nothing is trained")
    parser.add_argument("--encoder", default="", help="folder or hub id of the text encoder")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 3.0, 4.0])
    parser.add_argument("--repeats", type=int, default=8, help="videos of each scene that is asked for")
    options = parser.parse_args()
    use_fast_float32()
    run = options.model
    if run is None:
        world = options.out / f"world_{options.kind}"
        shapes.write_world(world, VIDEOS, by=KINDS[options.kind])
        run = train(preset(options.kind, options.steps, options.encoder), world, options.out / options.kind)
    pipe, probe = MagiVideoPipeline.from_pretrained(run), train_probe(KINDS[options.kind])
    sets = {"shown": shapes.scenes(held_out=False), "held out": shapes.scenes(held_out=True)}
    if options.kind != "text":
        del sets["held out"]  # a label says nothing of them
    sets = {name: [scene for scene in scenes for _ in range(options.repeats)] for name, scenes in sets.items()}
    random = np.random.default_rng(2)
    results: dict[str, Any] = {}
    rows, labels = [], []
    for name, asked in sets.items():
        known = asked * 5  # none of which the probe was trained on
        drawn = np.stack([shapes.draw(scene, random) for scene in known])
        results[f"{name}, drawn"] = look(drawn, known, probe)
        for scale in options.scales:
            videos = generate(pipe, asked, options.kind, scale)
            key = f"{name}, guidance {scale:g}"
            results[key] = look(videos, asked, probe)
            print(key, results[key], flush=True)
            stride = math.ceil(len(asked) / 4)
            rows += list(videos[::stride])
            name_of = attrgetter("caption" if options.kind == "text" else KINDS[options.kind])
            told = [name_of(scene) for scene in asked[::stride]]
            labels += [f"{text}, guidance {scale:g}{', held out' if name == 'held out' else ''}" for text in told]
    settings = {"steps": pipe.config.training.get("steps"), "videos": VIDEOS, "repeats": options.repeats}
    write_json(options.out / f"control_{options.kind}.json", {"settings": settings, "results": results})
    write_image(options.out / f"control_{options.kind}.png", contact_sheet(rows, labels=labels, columns=6, min_side=48))


if __name__ == "__main__":
    main()
