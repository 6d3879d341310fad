"""Which keys a world's continuations show: inverse dynamics on the samples of an evaluation.

    magi evaluate coinrun --data TEST --num 128 --context-frames 5 --actions --out evaluation
    python benchmarks/keys.py coinrun --train TRAIN --test TEST --evaluation evaluation --json keys.json

A small network (`experiments/inverse.py`) learns from real clips of TRAIN, as the model's codec shows them, which way
the player went and whether a jump was asked for. It then judges the clips of the evaluation: the true continuations
through the codec (the ceiling: some keys change nothing), the model's, and the last given frame held (chance).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from magi_video import MagiVideoPipeline
from magi_video.data.clips import clip_actions, clip_frames
from magi_video.data.folder import VideoFolder
from magi_video.evaluation.baselines import copy_last, through_codec
from magi_video.evaluation.clipset import load_array
from magi_video.evaluation.protocols import Protocol, find_protocol
from magi_video.evaluation.realset import open_videos, real_clips
from magi_video.experiments.inverse import FRAMES, Keys, score_keys, train_inverse
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.files.atomic import write_json
from magi_video.files.json import read_json


def clips_and_keys(
    videos: VideoFolder, protocol: Protocol, count: int, size: tuple[int, int], names: Sequence[str]
) -> tuple[np.ndarray, Keys]:
    """The protocol's clips, uint8 `[N, T, H, W, 3]`, and what was held on the way to each of their frames."""
    clips, picks = real_clips(videos, protocol, count, size)
    tracks = []
    for pick in picks:
        recorded = videos.actions(pick.video, names)
        assert recorded is not None, "recordings have actions"
        tracks.append(clip_actions(recorded, clip_frames(pick.start, protocol.interval, protocol.frames)))
    return np.stack([clips[index] for index in range(len(clips))]), Keys.read(np.stack(tracks), names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--train", required=True, help="recordings that the network learns from")
    parser.add_argument("--test", required=True, help="recordings that the evaluation continued")
    parser.add_argument("--evaluation", type=Path, required=True, help="its folder")
    parser.add_argument("--clips", type=int, default=600, help="to learn from")
    parser.add_argument("--steps", type=int, default=600, help="of learning")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    use_fast_float32()
    pipe = MagiVideoPipeline.from_pretrained(options.model)
    size, names = (pipe.config.height, pipe.config.width), pipe.config.action_names
    asked = read_json(options.evaluation / "evaluate.json")
    given = asked["context_frames"]
    protocol = find_protocol(asked["protocol"], given=given, frames=asked["frames"], interval=asked["interval"])
    samples = sorted((options.evaluation / "samples").glob("*.npy"))

    everything = replace(protocol, clips_per_video=1)
    learned, held = clips_and_keys(VideoFolder(options.train), everything, options.clips, size, names)
    shown = np.stack([through_codec(clip, pipe.codec) for clip in learned])
    network = train_inverse(shown, held, options.steps)

    true, keys = clips_and_keys(open_videos(options.test, protocol)[0], protocol, len(samples), size, names)
    made = np.stack([load_array(path) for path in samples])
    rows = {
        "real": np.stack([through_codec(clip, pipe.codec) for clip in true]),
        "model": made,
        "copy_last": np.stack([copy_last(clip, given) for clip in made]),
    }
    first = max(given, FRAMES - 1)
    results: dict[str, Any] = {name: score_keys(network, clips, keys, first) for name, clips in rows.items()}
    for name, result in results.items():
        result["standard_error"] = {
            key: round(float(np.std(values) / len(values) ** 0.5), 4) for key, values in result.pop("per_clip").items()
        }
        print(
            f"{name:10} side {result['side']:.3f}  jump {result['up']:.3f}  (± {result['standard_error']})", flush=True
        )
    write_json(options.json, {"model": options.model, "clips": len(samples), "given": given, "rows": results})


if __name__ == "__main__":
    main()
