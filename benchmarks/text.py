"""Whether videos made from text alone show what the text says, in the world of shapes (`magi record shapes`).

    python benchmarks/text.py runs/shapes --out OUT

No frame is given. What a video shows is read from its pixels by a rule (`experiments/shapes.py`), its colour, its shape
and its motion, and compared with the caption: of scenes that training showed, and of those that were held out, which
are scenes of names that were all seen often, but never these three together. Beside the model stand videos of the world
itself, the same through the model's codec, and videos that the model makes without a caption, which is chance.

The guidance scale is the best of `--scales` by the share that has all three right, on captions of their own (seen
scenes alone; of equal ones by the three shares together, then the smallest). Writes text.json and a contact sheet,
text.png. How the later half of the frames reads tells whether the first frames, which are made from nothing, are what
is wrong. A pretrained sentence encoder, in an older and smaller world, is measured by control.py.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from magi_video import MagiVideoPipeline
from magi_video.distributed import Processes
from magi_video.experiments.shapes import Seen, read_video
from magi_video.files.atomic import write_json
from magi_video.pipeline.ready import make_ready
from magi_video.recordings.shapes import Scene, draw, scenes, write_caption
from magi_video.video.image import contact_sheet, spread_frames, to_model_range, to_uint8, write_image

ROWS_SHOWN, FRAMES_SHOWN = 6, 8
"""Videos of each set on the contact sheet, and frames of each, evenly spaced."""
WITHOUT = 30
"""Videos made without a caption."""
ATTRIBUTES = (*Scene._fields, "all")

Asked = list[tuple[Scene, str]]
"""Scenes, each with a caption."""


def captions(of: Sequence[Scene], count: int, seed: int) -> Asked:
    """`count` captions, spread evenly over the scenes, their wordings drawn."""
    random = np.random.default_rng([seed, len(of)])
    asked = [of[index * len(of) // count] for index in range(count)]
    return [(scene, write_caption(scene, random)) for scene in asked]


def generate(
    pipe: MagiVideoPipeline, texts: Sequence[str] | None, count: int, frames: int, batch: int, scale: float, seed: int
) -> np.ndarray:
    """`count` videos from nothing but the texts, uint8 `[count, frames, side, side, 3]`."""
    made = []
    for first in range(0, count, batch):
        numbers = range(first, min(count, first + batch))
        text = None if texts is None else [texts[number] for number in numbers]
        seeds = [torch.Generator().manual_seed(seed + number) for number in numbers]
        videos = pipe(text=text, num_videos=len(numbers), num_frames=frames, guidance_scale=scale, generator=seeds)
        made.append((videos.frames * 255).round().astype(np.uint8))
    return np.concatenate(made)


def through_codec(pipe: MagiVideoPipeline, videos_NTHWC: np.ndarray) -> np.ndarray:
    """The videos as the model's codec shows them."""
    with torch.no_grad():
        return np.stack(
            [to_uint8(pipe.codec.decode(pipe.codec.encode(to_model_range(video[None]))))[0] for video in videos_NTHWC]
        )


def share(right: Sequence[bool]) -> dict[str, float]:
    """Of what is right, with Wilson's 95 % interval."""
    found = binomtest(sum(right), len(right))
    interval = found.proportion_ci(method="wilson")
    return {"share": found.statistic, "low": interval.low, "high": interval.high}


def judge(seen: Sequence[Seen], asked: Asked) -> dict[str, Any]:
    """Shares of the videos that show what was asked for, by attribute; and those that do not."""
    right = [one.agrees(scene) for one, (scene, _) in zip(seen, asked, strict=True)]
    wrong = [
        {"caption": caption, "seen": [one.colour, one.shape, one.motion]}
        for one, (_, caption), agrees in zip(seen, asked, right, strict=True)
        if not agrees["all"]
    ]
    shares = {name: share([agrees[name] for agrees in right]) for name in ATTRIBUTES}
    return {"videos": len(asked), **shares, "wrong": wrong}


def line(name: str, figures: dict[str, Any]) -> str:
    """A row of the table."""
    found = [figures[name] for name in ATTRIBUTES]
    cells = [f"{one['share']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in found]
    return f"| {name} | {' | '.join(cells)} | {figures['videos']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model of the preset shapes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="of guidance")
    parser.add_argument("--choose", type=int, default=20, help="captions to choose the scale by")
    parser.add_argument("--seen", type=int, default=60, help="captions of seen scenes that are reported")
    parser.add_argument("--held-out", type=int, default=60, help="captions of scenes held out")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch", type=int, default=20, help="videos made together")
    options = parser.parse_args()
    began = time.perf_counter()
    ready = make_ready(options.model, "auto", Processes(), videos=options.batch, frames=options.frames)
    pipe, size = ready.pipe, (options.frames, options.batch)
    print(ready, flush=True)

    def read(videos_NTHWC: np.ndarray) -> list[Seen]:
        return [read_video(video_THWC) for video_THWC in videos_NTHWC]

    def told(asked: Asked, scale: float, seed: int) -> np.ndarray:
        return generate(pipe, [caption for _, caption in asked], len(asked), *size, scale, seed)

    asked = captions(scenes(held_out=False), options.choose, seed=1)
    choice = {}
    print(f"| | {' | '.join(ATTRIBUTES)} | videos |\n|{'---|' * (len(ATTRIBUTES) + 2)}", flush=True)
    for scale in options.scales:
        choice[scale] = judge(read(told(asked, scale, seed=10_000)), asked)
        print(line(f"to choose by, guidance {scale:g}", choice[scale]), flush=True)

    def order(scale: float) -> tuple[float, float, float]:
        shares = [choice[scale][name]["share"] for name in ATTRIBUTES]
        return shares[-1], sum(shares[:-1]), -scale

    best = max(options.scales, key=order)

    sets = {
        "seen": captions(scenes(held_out=False), options.seen, seed=2),
        "held out": captions(scenes(held_out=True), options.held_out, seed=2),
    }
    without = read(generate(pipe, None, WITHOUT, *size, 1.0, seed=90_000))
    random = np.random.default_rng(3)
    rows: dict[str, Any] = {}
    sheet: list[np.ndarray] = []
    labels: list[str] = []
    for number, (name, asked) in enumerate(sets.items()):
        real = np.stack([draw(scene, random, options.frames) for scene, _ in asked])
        videos = told(asked, best, seed=20_000 * (number + 1))
        seen = read(videos)
        spread = [asked[index] for index in np.linspace(0, len(asked) - 1, WITHOUT).round().astype(int)]
        found = {
            "real": judge(read(real), asked),
            "codec": judge(read(through_codec(pipe, real)), asked),
            "model": judge(seen, asked),
            "model, later half": judge(read(videos[:, options.frames // 2 :]), asked),
            "model without a caption": judge(without, spread),
        }
        for row, figures in found.items():
            rows[f"{name}, {row}"] = figures
            print(line(f"{name}, {row}", figures), flush=True)
        frames = spread_frames(options.frames, FRAMES_SHOWN)
        for index in np.random.default_rng(4).permutation(len(asked))[:ROWS_SHOWN]:
            (scene, caption), one = asked[index], seen[index]
            wrong = "" if one.agrees(scene)["all"] else f"; read as: {one.colour}, {one.shape}, {one.motion}"
            sheet.append(videos[index][frames])
            labels.append(f"{caption}{' (held out)' if name == 'held out' else ''}{wrong}")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    result = {
        "settings": settings,
        "sampling": asdict(pipe.resolve()),
        "steps": pipe.config.training.get("steps"),
        "precision": ready.choice.precision,
        "guidance": best,
        "choice": {f"{scale:g}": figures for scale, figures in choice.items()},
        "rows": rows,
        "seconds": round(time.perf_counter() - began),
    }
    write_json(options.out / "text.json", result)
    write_image(options.out / "text.png", contact_sheet(sheet, labels=labels, numbers=frames, min_side=64))


if __name__ == "__main__":
    main()
