"""What codes cost: the VQ codec beside the small VAE, of equal networks and equal steps, on the same frames.

python benchmarks/compare_codecs.py VIDEOS --out DIR [--steps 2000] [--seed 0]

Every codec has the small VAE's encoder and decoder at the same down-sampling; the last videos are held out. Prints a
table and writes `codecs.json` and `codecs.png`: held-out frames, and what each codec makes of them.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from magi_video.bench.machine import cpu_model
from magi_video.codecs.base import Codec
from magi_video.codecs.config import SmallVAEConfig, VQConfig
from magi_video.codecs.discrete import DiscreteCodec, measure_code_use
from magi_video.codecs.quality import reconstruction_psnr
from magi_video.codecs.small_vae_training import SmallVAETraining
from magi_video.codecs.training import train_codec
from magi_video.codecs.vq_training import VQTraining
from magi_video.data.folder import VideoFolder
from magi_video.training.preparation import FrameBatches, frames_to_measure
from magi_video.video.image import contact_sheet, to_model_range, write_image

SIDE, SHOWN = 64, 8
CODECS: dict[str, SmallVAEConfig | VQConfig] = {
    "small VAE, 8 numbers": SmallVAEConfig(),
    "VQ, 1024 codes of 8": VQConfig(),
    "VQ, 1024 codes of 8, no restarts": VQConfig(restart_every=0),
    "VQ, 1024 codes of 8, unit length": VQConfig(l2_normalize=True),
    "VQ, 2048 codes of 256 (VideoGPT)": VQConfig(codebook_size=2048, code_dim=256),
    "FSQ, 8·5·5·5 codes": VQConfig(quantizer="fsq"),
}
"""By what the table calls them."""


def main() -> None:
    """Train, score, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--held-out", type=int, default=4, help="videos")
    parser.add_argument("--factor", type=int, default=8, choices=(4, 8), help="pixels per latent place along a side")
    parser.add_argument("--width", type=int, default=64, help="channels of every convolution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CODECS))
    options = parser.parse_args()
    videos = VideoFolder(options.videos)
    train, held = split(videos, options.held_out)
    batches = FrameBatches(train, SIDE, SIDE, 16, options.seed)
    seen = FrameBatches(held, SIDE, SIDE, 16, options.seed)
    test = [seen(step)[:, None] for step in range(16)]
    rows: dict[str, Any] = {}
    shown = seen.frames_MHWC[:: max(1, len(seen.frames_MHWC) // SHOWN)][:SHOWN]
    pictures, labels = [shown], ["held out"]
    for name in options.only:
        config = replace(CODECS[name], steps=options.steps, width=options.width, seed=options.seed, precision="bf16")
        if options.factor == 4:
            config = replace(config, encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0))
        began = time.perf_counter()
        codec = trained(config, batches, options.out / "".join(one if one.isalnum() else "-" for one in name))
        rows[name] = {
            "psnr": reconstruction_psnr(codec, test),
            "config": asdict(config),
            "seconds": time.perf_counter() - began,
        }
        if isinstance(codec, DiscreteCodec):
            share, perplexity = measure_code_use(codec, test)
            rows[name] |= {"codes": codec.codes, "used": share, "perplexity": perplexity}
        print(name, {key: value for key, value in rows[name].items() if key != "config"}, flush=True)
        made = codec.decode(codec.encode(to_model_range(shown)[None]))[0]
        pictures.append((made.movedim(1, -1).add(1).mul(127.5)).round().clamp(0, 255).to(torch.uint8).numpy())
        labels.append(f"{name}: {rows[name]['psnr']:.1f} dB")
        facts = {"cpu": cpu_model(), "videos": len(train.videos), "frames": len(batches.frames_MHWC)}
        facts |= {"steps": options.steps, "factor": options.factor, "width": options.width, "seed": options.seed}
        (options.out / "codecs.json").write_text(json.dumps(facts | {"codecs": rows}, indent=2) + "\n")
        write_image(options.out / "codecs.png", contact_sheet(pictures, labels=labels, columns=SHOWN))


def split(videos: VideoFolder, held_out: int) -> tuple[VideoFolder, VideoFolder]:
    """All but the last videos, and the last."""
    parts = []
    for kept in (videos.videos[:-held_out], videos.videos[-held_out:]):
        part = VideoFolder(videos.root)
        part.videos = kept
        parts.append(part)
    return parts[0], parts[1]


def trained(config: SmallVAEConfig | VQConfig, batches: FrameBatches, out: Path) -> Codec:
    """The codec of a recipe."""
    measured = frames_to_measure(batches)
    if isinstance(config, VQConfig):
        return train_codec(VQTraining(config), batches, measured, out)
    return train_codec(SmallVAETraining(config), batches, measured, out)


if __name__ == "__main__":
    main()
