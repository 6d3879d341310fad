"""Video codecs: seconds and peak memory of encoding and decoding a clip, whole and in tiles, and streaming.

    python benchmarks/video_codec.py [--data UCF101] [--side 128] [--frames 17] [--tile 64] [--scale 4] [--json FILE]

The published shapes of each class with random weights, `--scale` times narrower: time and memory do not depend on the
weights. Every case runs in a process of its own, for its peak of memory (Linux). Clips are real ones where `--data`
names a folder of videos, else noise. Seconds are of the processor, which a busy machine does not change; those of a
decoder are for each piece, in the order they come.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.codecs.temporal import TemporalCodec
from magi_video.codecs.video_vae import VideoVAECodec
from magi_video.data.clips import ClipDataset, ClipRequest, PixelReader
from magi_video.data.folder import VideoFolder

CASES = ("cosmos-4x8x8", "wan-2.1", "cogvideox", "ltx-video", "omnitokenizer")


def make_codec(name: str, scale: int) -> TemporalCodec:
    """A codec of the published shape, `scale` times narrower."""

    def widths(*channels: int) -> tuple[int, ...]:
        return tuple(count // scale for count in channels)

    if name == "omnitokenizer":
        return OmniTokenizerCodec(width=512 // scale, heads=8 // min(scale, 8))
    published: dict[str, tuple[str, dict[str, Any]]] = {
        "cosmos-4x8x8": (
            "AutoencoderKLCosmos",
            {
                "encoder_block_out_channels": widths(128, 256, 512, 512),
                "decode_block_out_channels": widths(256, 512, 512, 512),
                "temporal_compression_ratio": 4,
            },
        ),
        "wan-2.1": ("AutoencoderKLWan", {"base_dim": 96 // scale}),
        "cogvideox": (
            "AutoencoderKLCogVideoX",
            {"block_out_channels": widths(128, 256, 256, 512), "norm_num_groups": 32 // scale},
        ),
        "ltx-video": (
            "AutoencoderKLLTXVideo",
            {
                "block_out_channels": widths(128, 256, 512, 512),
                "decoder_block_out_channels": widths(128, 256, 512, 512),
            },
        ),
    }
    vae_class, config = published[name]
    if vae_class == "AutoencoderKLCogVideoX":
        config |= {f"{way}_block_types": (f"CogVideoX{way.title()}Block3D",) * 4 for way in ("down", "up")}
    return VideoVAECodec(vae_class, config)


def read_clip(data: Path | None, side: int, frames: int) -> torch.Tensor:
    """One clip `[1, T, 3, side, side]`."""
    if data is None:
        return torch.rand((1, frames, 3, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    folder = VideoFolder(data, sample=20)
    clips = ClipDataset(folder, PixelReader(folder, side, side), frames, max_interval=1)
    return clips[ClipRequest(0, 0)]["frames"][None]


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mebibytes() -> float:
    """Peak of this process's memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One case: what is coded is `arguments.operation`."""
    torch.manual_seed(0)
    codec = make_codec(arguments.case, arguments.scale).eval()
    video_BTCHW = read_clip(arguments.data, arguments.side, arguments.frames)
    height, width = codec.latent_size(arguments.side, arguments.side)
    count = codec.num_latent_frames(arguments.frames)
    latents_BTCHW = torch.randn(1, count, codec.latent_channels, height, width)
    if isinstance(codec, VideoVAECodec):
        codec.tile = arguments.tile
    forget_peak()
    before, began = peak_mebibytes(), time.process_time()
    figures: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in codec.parameters())}
    if arguments.operation == "encode":
        assert codec.encode(video_BTCHW).shape == latents_BTCHW.shape
    elif arguments.operation == "decode":
        assert codec.decode(latents_BTCHW).shape == video_BTCHW.shape
    else:
        pieces = []
        for piece_BTCHW in codec.decode_stream(iter(latents_BTCHW.unbind(1))):
            pieces.append((piece_BTCHW.shape[1], time.process_time()))
        times = [now - then for (_, now), then in zip(pieces, [began, *(at for _, at in pieces)], strict=False)]
        figures["frames"] = [frames for frames, _ in pieces]
        figures["seconds_of_pieces"] = [round(value, 3) for value in times]
    figures["seconds"] = round(time.process_time() - began, 3)
    figures["peak_mebibytes"] = round(peak_mebibytes() - before)
    return figures


def main() -> None:
    """Each case in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of videos")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--tile", type=int, default=64, help="pixels of a tile's side")
    parser.add_argument("--scale", type=int, default=4, help="how much narrower than published")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--operation", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.case:
        arguments.tile = arguments.tile or None
        print(json.dumps(measure(arguments)))
        return
    common = [f"--{name}={getattr(arguments, name)}" for name in ("side", "frames", "scale", "threads")]
    common += [f"--data={arguments.data}"] if arguments.data else []
    figures: dict[str, Any] = {"torch": torch.__version__, "side": arguments.side, "frames": arguments.frames}
    figures |= {"scale": arguments.scale, "threads": arguments.threads}
    for case in arguments.cases:
        for operation in ("encode", "decode", "stream"):
            for tile in (0, arguments.tile)[: 1 if case == "omnitokenizer" else 2]:
                own = [f"--case={case}", f"--operation={operation}", f"--tile={tile}"]
                found = subprocess.run(
                    [sys.executable, __file__, *common, *own], capture_output=True, text=True, check=True
                )
                name = f"{case}, {operation}" + (f", tiles of {tile}" if tile else "")
                figures[name] = json.loads(found.stdout.splitlines()[-1])
                print(name, json.dumps(figures[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
