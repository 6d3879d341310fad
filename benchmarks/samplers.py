"""Which sampler keeps the motion: candidates that continue the same real clips, scored one after the other.

    magi record vizdoom/deathmatch --episodes 16 --seed 7000 --out recordings/deathmatch
    python benchmarks/samplers.py doom --data recordings --interval 2 --work work --out docs/performance/samplers.json
    … --fvd --only exact dpm970-2x8

The first call makes the samples and scores PSNR, motion and the Fréchet distance of the latent tokens; with --fvd also
FVD and LPIPS, dear on a CPU. --drift makes long videos of a few clips, --seconds times the candidates in turns.
Each figure is in the file as soon as it is there, and is not computed again.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video import MagiVideoPipeline
from magi_video.evaluation.features import Detectors
from magi_video.evaluation.frechet import Moments, frechet_distance
from magi_video.evaluation.generation import evaluate
from magi_video.files.atomic import write_json
from magi_video.sampling.sampling import Sampling
from magi_video.video.image import contact_sheet, write_image
from rollouts import start_rollout


@dataclass(frozen=True)
class Candidate:
    """How frames are made."""

    mask_steps: int
    denoise_steps: int
    sampler: str
    first_step: int
    refresh: int = 4

    @property
    def sampling(self) -> Sampling:
        return Sampling(None, self.mask_steps, self.denoise_steps, self.sampler, self.first_step, refresh=self.refresh)


CANDIDATES = {
    "exact": Candidate(8, 20, "ancestral", 990, 1),
    "ancestral990-2x10": Candidate(2, 10, "ancestral", 990),
    "ancestral990-2x8": Candidate(2, 8, "ancestral", 990),
    "ancestral990-1x8": Candidate(1, 8, "ancestral", 990),
    "dpm970-2x10": Candidate(2, 10, "dpmsolver++", 970),
    "dpm970-2x8": Candidate(2, 8, "dpmsolver++", 970),
    "dpm970-1x8": Candidate(1, 8, "dpmsolver++", 970),
    "dpm970-2x4": Candidate(2, 4, "dpmsolver++", 970),
    "dpm950-2x8": Candidate(2, 8, "dpmsolver++", 950),
    "dpm950-1x8": Candidate(1, 8, "dpmsolver++", 950),
    "ddim970-2x8": Candidate(2, 8, "ddim", 970),
    "ddim950-2x8": Candidate(2, 8, "ddim", 950),
}
TIMED_FRAMES = 16
SHEET_CLIPS = 6


def no_detector() -> Detectors:
    """In place of I3D, for the cheap scores: the mean colour, whose distance nobody reads."""
    return Detectors(lambda video: video.float().mean(dim=(2, 3, 4)))


def detectors(rough: bool) -> Detectors:
    """I3D and LPIPS; with `rough`, I3D's convolutions in bfloat16."""
    found = Detectors.load(torch.device("cpu"), image=False)
    if rough:
        exact = found.video

        def video(clip: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return exact(clip)

        found = replace(found, video=video, hashes={**found.hashes, "i3d": f"{found.hashes['i3d']} in bfloat16"})
    return found


def fifths(per_frame: list[float]) -> tuple[float, float]:
    """Means over the first and the last fifth of a clip's frames."""
    size = max(1, round(len(per_frame) / 5))
    return statistics.mean(per_frame[:size]), statistics.mean(per_frame[-size:])


def motion(metrics: dict[str, Any]) -> dict[str, Any]:
    """Change a frame in the first and the last fifth, the real clips' beside it, and the mean |ln| of their ratio."""
    made, real = (fifths(metrics["per_frame"][name]) for name in ("motion", "motion_real"))
    ratios = [one / other for one, other in zip(made, real, strict=True)]
    return {
        "change": [round(value, 2) for value in made],
        "change_real": [round(value, 2) for value in real],
        "motion_error": round(statistics.mean(abs(math.log(ratio)) for ratio in ratios), 4),
        "speed_ratio": metrics["motion"]["speed_ratio"],
        "jerk_ratio": metrics["motion"]["jerk_ratio"],
    }


@torch.no_grad()
def tokens(pipe: MagiVideoPipeline, clips: list[np.ndarray]) -> np.ndarray:
    """Latent tokens of the generated frames of uint8 clips `[T, H, W, 3]`: `[clips · frames · N, D]`."""
    found = []
    for clip in clips:
        frames_BTCHW = torch.from_numpy(clip[None, 1:]).movedim(-1, 2).float() / 127.5 - 1
        found.append(pipe.transformer.patchify(pipe.codec.encode(frames_BTCHW)).flatten(0, 2).numpy())
    return np.concatenate(found)


def samples(folder: Path, count: int) -> list[np.ndarray]:
    """The videos of an evaluation."""
    return [np.load(folder / "samples" / f"{index:06d}.npy", allow_pickle=False) for index in range(count)]


class Book:
    """The figures of all worlds in one file, written after every change."""

    def __init__(self, path: Path, world: str) -> None:
        self.path = path
        self.content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.world = self.content.setdefault(world, {"candidates": {}})

    def note(self, name: str, **figures: Any) -> None:
        """Figures of a candidate."""
        self.world["candidates"].setdefault(name, {}).update(figures)
        self.write()

    def write(self) -> None:
        """To the disk."""
        write_json(self.path, self.content)


def run(arguments: argparse.Namespace, book: Book, name: str, real_tokens: list[np.ndarray]) -> None:
    """One candidate: samples and cheap scores, then FVD if it is asked for."""
    candidate, folder = CANDIDATES[name], arguments.work / arguments.model / name
    known = book.world["candidates"].get(name, {})
    options: dict[str, Any] = {
        "num": arguments.num, "context_frames": 1, "interval": arguments.interval, "out": folder,
        "sampling": candidate.sampling, "batch_size": arguments.batch, "actions": True, "fid": False,
        "over_length": False, "device": "cpu",
    }  # fmt: skip
    if "psnr" not in known:
        began = time.process_time()
        made = evaluate(arguments.model, arguments.data, **options, detectors=no_detector(), lpips=False)
        book.note(
            name,
            **asdict(candidate),
            cpu_seconds_cheap=round(time.process_time() - began, 1),
            psnr=made["paired"]["psnr"],
            ssim=made["paired"]["ssim"],
            psnr_fifths=[round(value, 3) for value in fifths(made["per_frame"]["psnr"])],
            **motion(made),
        )
    if "token_frechet" not in known:
        pipe = MagiVideoPipeline.from_pretrained(arguments.model)
        if not real_tokens:
            real_tokens.append(tokens(pipe, real_clips(arguments)))
        ours = tokens(pipe, samples(folder, arguments.num))
        both = (Moments.from_features(one) for one in (real_tokens[0], ours))
        distance = frechet_distance(*both, ddof=1, root="eigh")
        book.note(name, token_frechet=round(distance.value, 3))
    write_sheet(arguments, name, real_clips(arguments))
    if arguments.fvd and "fvd" not in known:
        began = time.process_time()
        made = evaluate(arguments.model, arguments.data, **options, detectors=detectors(arguments.rough), lpips=True)
        book.note(
            name,
            fvd=made["fvd"], fvd_interval=made["fvd_interval"], lpips=made["paired"]["lpips"],
            i3d="bfloat16" if arguments.rough else "float32",
            cpu_seconds_fvd=round(time.process_time() - began, 1),
        )  # fmt: skip
    print(name, json.dumps(book.world["candidates"][name]), flush=True)


def real_clips(arguments: argparse.Namespace) -> list[np.ndarray]:
    """The clips that are continued, read once and kept."""
    from magi_video.evaluation.protocols import find_protocol
    from magi_video.evaluation.realset import Numbers, open_videos
    from magi_video.evaluation.realset import real_clips as choose

    path = arguments.work / arguments.model / f"real-{arguments.num}.npy"
    if not path.is_file():
        protocol = find_protocol("small", given=1, interval=arguments.interval)
        config = MagiVideoPipeline.from_pretrained(arguments.model).config
        videos, _ = open_videos(arguments.data, protocol)
        numbers = Numbers.of(protocol, arguments.num, None)
        clips, _ = choose(videos, protocol, numbers.larger(protocol), (config.height, config.width))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack([clips[index] for index in range(arguments.num)]))
    return list(np.load(path, allow_pickle=False))


def write_sheet(arguments: argparse.Namespace, name: str, real: list[np.ndarray]) -> None:
    """A few true clips, each with the continuation below it."""
    made = samples(arguments.work / arguments.model / name, SHEET_CLIPS)
    rows = [clip for pair in zip(real[:SHEET_CLIPS], made, strict=True) for clip in pair]
    write_image(arguments.work / arguments.model / f"{name}.png", contact_sheet(rows, columns=16, max_frames=16))


@torch.no_grad()
def time_candidates(arguments: argparse.Namespace, book: Book) -> None:
    """Processor milliseconds of a frame of one video, without decoding: medians over rounds in which all take turns."""
    pipe = MagiVideoPipeline.from_pretrained(arguments.model)
    seconds: dict[str, list[float]] = {name: [] for name in arguments.only}
    for _ in range(arguments.rounds):
        for name in arguments.only:
            one = CANDIDATES[name]
            rollout = start_rollout(pipe.transformer, one.sampling)
            rollout.predict()
            for _ in range(TIMED_FRAMES):
                began = time.process_time()
                rollout.predict()
                seconds[name].append(time.process_time() - began)
    for name in arguments.only:
        book.note(name, cpu_milliseconds=round(1e3 * statistics.median(seconds[name]), 2))
        print(name, book.world["candidates"][name]["cpu_milliseconds"], flush=True)


def drift(arguments: argparse.Namespace, book: Book, name: str) -> None:
    """Long videos: each score's mean over the first fifth of the frames minus its mean over all (BAgger's Δ)."""
    candidate = CANDIDATES[name]
    made = evaluate(
        arguments.model, arguments.data, num=arguments.drift, context_frames=1, frames=120, interval=arguments.interval,
        out=arguments.work / arguments.model / f"{name}-120", sampling=candidate.sampling,
        batch_size=arguments.batch, actions=True,
        fid=False, over_length=False, device="cpu", detectors=no_detector(), lpips=False,
    )  # fmt: skip
    clips = samples(arguments.work / arguments.model / f"{name}-120", arguments.drift)
    per_frame = {"psnr": made["per_frame"]["psnr"], "change": made["per_frame"]["motion"]}
    per_frame["sharpness"] = np.mean([[sharpness(frame) for frame in clip[1:]] for clip in clips], axis=0).tolist()
    figures = {}
    for key, values in per_frame.items():
        first, last = fifths(values)
        figures[key] = {"first_fifth": first, "last_fifth": last, "drift": first - statistics.mean(values)}
    rounded = {key: {part: round(value, 3) for part, value in one.items()} for key, one in figures.items()}
    rounded["change"]["real"] = [round(value, 3) for value in fifths(made["per_frame"]["motion_real"])]
    book.note(name, drift_120={"clips": arguments.drift, **rounded})
    print(name, json.dumps(book.world["candidates"][name]["drift_120"]), flush=True)


def sharpness(frame_HWC: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels, 8-bit levels."""
    grey = frame_HWC.astype(np.float32).mean(axis=-1)
    return float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("doom", "atari"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--interval", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--num", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fvd", action="store_true")
    parser.add_argument("--rough", action="store_true", help="I3D's convolutions in bfloat16")
    parser.add_argument("--seconds", action="store_true", help="time the candidates in turns, nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drift", type=int, default=0, metavar="CLIPS", help="120 frames of so many, nothing else")
    arguments = parser.parse_args()
    book, real_tokens = Book(arguments.out, arguments.model), list[np.ndarray]()
    if arguments.seconds:
        time_candidates(arguments, book)
        return
    for name in arguments.only:
        if arguments.drift:
            drift(arguments, book, name)
        else:
            run(arguments, book, name, real_tokens)


if __name__ == "__main__":
    main()
