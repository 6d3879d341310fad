"""Speed of image codecs: milliseconds a frame, to decode and to encode, by precision and frames at once.

    python benchmarks/codec.py [--threads 1] [--compile] [--json FILE]

`doom` is the shipped codec at 64 pixels, `kl` an `AutoencoderKL` of SD-1.4's shape with random weights at 256 pixels, a
quarter as wide (`--kl-width 128` for the real width). `plain` is the diffusers model as it comes, contiguous and in
float32. Alternatives take turns, so that their ratios hold on a busy machine too; PSNR is against float32.
"""

import argparse
import copy
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.registry import load_codec
from magi_video.files.weights import SHIPPED


def kl_codec(width: int) -> ImageVAECodec:
    """SD-1.4's VAE, `width` channels on its finest level."""
    levels = (width, 2 * width, 4 * width, 4 * width)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    config = {"block_out_channels": levels, "layers_per_block": 2, "latent_channels": 4, **blocks}
    codec = ImageVAECodec("AutoencoderKL", config).eval()
    codec.vae.to(memory_format=torch.channels_last)
    return codec


def alternatives(codec: ImageVAECodec, compiled: bool) -> dict[str, ImageVAECodec]:
    """Copies of a codec, by name."""
    found = {"float32": codec, "bfloat16": copy.deepcopy(codec).to(torch.bfloat16)}
    for name, one in list(found.items()) if compiled else ():
        found[f"{name} compiled"] = other = copy.deepcopy(one)
        for part in (other.vae.encoder, other.vae.decoder):
            part.compile(dynamic=False)
    return found


def calls(codec: ImageVAECodec, side: int, batch: int, compiled: bool) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is timed, by operation and alternative."""
    generator = torch.Generator().manual_seed(0)
    height, width = codec.latent_size(side, side)
    latents = torch.randn(1, batch, codec.latent_channels, height, width, generator=generator)
    pixels = torch.rand(1, batch, 3, side, side, generator=generator) * 2 - 1
    plain = copy.deepcopy(codec.vae).to(memory_format=torch.contiguous_format)
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "decode": {"plain": lambda: plain.decode(latents[0])},
        "encode": {"plain": lambda: plain.encode(pixels[0])},
    }
    for name, one in alternatives(codec, compiled).items():
        found["decode"][name] = partial(one.decode, latents)
        found["encode"][name] = partial(one.encode, pixels)
    return found


@torch.no_grad()
def milliseconds(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and least time of each function, after two calls that are not counted."""
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 2):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if number >= 2:
                taken[name].append(1000 * (time.perf_counter() - began))
    return {name: {"median": statistics.median(times), "least": min(times)} for name, times in taken.items()}


def psnr(exact: torch.Tensor, other: torch.Tensor) -> float:
    """In dB, for pixels in [-1, 1]."""
    return 10 * math.log10(4 / (exact - other).square().mean().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="repetitions of the smallest case; larger ones fewer")
    parser.add_argument("--kl-width", type=int, default=32, help="SD-1.4 has 128")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: needs a C++ compiler")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    doom: Any = load_codec(SHIPPED / "doom" / "codec")
    figures: dict[str, Any] = {"torch": torch.__version__, "threads": arguments.threads}
    cases = (("doom", doom, 64, 1), ("doom", doom, 64, 16), ("kl", kl_codec(arguments.kl_width), 256, 1))
    for name, codec, side, batch in cases:
        found = calls(codec, side, batch, arguments.compile)
        rounds = arguments.rounds if (side, batch) == (64, 1) else max(5, arguments.rounds // 4)
        for operation, functions in found.items():
            figures[f"{name} {side} px, {operation} {batch}"] = {
                alternative: {key: round(value / batch, 3) for key, value in times.items()}
                for alternative, times in milliseconds(functions, rounds).items()
            }
        decode = found["decode"]
        figures[f"{name} bfloat16 PSNR"] = round(psnr(decode["float32"](), decode["bfloat16"]()), 1)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
