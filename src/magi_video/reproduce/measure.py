"""What is measured of a model in a world: its continuations of the context set against the reference set and the truth.

Everything is kept under OUT/WORLD/ by the name of the clip set, `samples/` (uint8 arrays), `features/` and `scores/`,
so an interrupted recipe goes on where it stopped.
"""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video.data.files import replacing, write_json
from magi_video.evaluation.detectors import I3D, LPIPS, Inception
from magi_video.evaluation.frechet import Moments, bootstrap_interval, frechet_distance
from magi_video.evaluation.motion import clip_motion, compare_motion
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.scoring import video_features
from magi_video.loading import read_json
from magi_video.pipeline import MagiPipeline
from magi_video.reproduce.clips import Clips, real_sets
from magi_video.reproduce.runs import Workplace

BATCH = 32
PROTOCOL = PROTOCOLS["small"]
Scores = dict[str, Any]


class Measures:
    """The scores of one world.

    Args:
        workplace: the world's folder.
        fid_frames: at how many frames of a clip, evenly spread over the generated ones, the per-frame FID is taken.
    """

    def __init__(self, workplace: Workplace, fid_frames: int = 4) -> None:
        self.workplace, self.world, self.folder = workplace, workplace.world, workplace.folder
        given, frames = self.world.given, self.world.frames
        self.fid_frames = [int(t) for t in np.linspace(given, frames - 1, fid_frames).round()]

    @cached_property
    def sets(self) -> tuple[Clips, Clips]:
        """Reference set and context set."""
        return real_sets(self.workplace)

    @property
    def reference(self) -> Clips:
        """What all scores are taken against."""
        return self.sets[0]

    @property
    def context(self) -> Clips:
        """The clips that models continue."""
        return self.sets[1]

    def samples(
        self, name: str, model: Path, context: Clips | None = None, num_frames: int | None = None, **settings: Any
    ) -> Clips:
        """A model's continuations of the context set, or of other clips; settings as `MagiPipeline.__call__` takes."""
        clips = self.context if context is None else context
        length = num_frames or self.world.frames
        return self._kept("samples", name, lambda: self._generate(name, model, clips, length, settings))

    def _generate(self, name: str, model: Path, clips: Clips, length: int, settings: dict[str, Any]) -> Clips:
        pipe = MagiPipeline.from_pretrained(model)
        given = clips[:, : self.world.given]
        done: list[Clips] = []
        self.workplace.display.say(f"{self.world.name}: generating {len(given)} clips of {name}")
        for first in range(0, len(given), BATCH):
            batch = given[first : first + BATCH]
            seeds = range(first, first + len(batch))
            frames = pipe(
                video=batch,
                num_frames=length,
                interval=self.world.interval,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                **settings,
            ).frames
            done.append((frames * 255).round().astype(np.uint8))
        made = np.concatenate(done)
        made[:, : self.world.given] = given  # as they are, not as the codec shows them
        return made

    def seconds_per_frame(self, model: Path, settings: dict[str, Any], frames: int = 12) -> float:
        """Median seconds of a generated frame of a single video, with decoding."""
        pipe = MagiPipeline.from_pretrained(model)
        given = self.context[:1, : self.world.given]
        moments = [time.perf_counter()]
        for _ in pipe.stream(video=given, num_frames=len(given[0]) + frames, interval=self.world.interval, **settings):
            moments.append(time.perf_counter())
        return round(float(np.median(np.diff(moments)[len(given[0]) + 1 :])), 5)

    def features(self, name: str, clips: Callable[[], Clips]) -> np.ndarray:
        """I3D logits [N, 400] of a clip set."""
        return self._kept("features", name, lambda: video_features(clips(), PROTOCOL, self._i3d))

    def frame_features(self, name: str, clips: Callable[[], Clips]) -> np.ndarray:
        """Inception features [N, F, 2048] of the frames at `fid_frames`."""

        def compute() -> np.ndarray:
            picked = clips()[:, self.fid_frames]
            return np.stack([self._inception(torch.from_numpy(clip)).numpy() for clip in picked])

        return self._kept("frame-features", name, compute)

    def score(self, name: str, clips: Callable[[], Clips], *, paired: bool = False, fid: bool = False) -> Scores:
        """FVD with its interval, motion, and on demand the per-frame FID and the errors against the truth."""
        path = self.folder / "scores" / f"{name}.json"
        kept = read_json(path) if path.is_file() else {}
        wanted = {"fvd"} | ({"psnr"} if paired else set()) | ({"fid"} if fid else set())
        if wanted <= set(kept):
            return kept
        self.workplace.display.say(f"{self.world.name}: scoring {name}")
        if "fvd" not in kept:
            kept |= self._fvd(name, clips) | {"motion": self._motion(clips())}
        if paired and "psnr" not in kept:
            kept |= self._errors(clips())
        if fid and "fid" not in kept:
            kept |= self._fid(name, clips)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)
        return kept

    def _fvd(self, name: str, clips: Callable[[], Clips]) -> Scores:
        real = self.features("reference", lambda: self.reference)
        fake = self.features(name, clips)
        rule: Any = {"ddof": PROTOCOL.ddof, "root": PROTOCOL.root}
        result = frechet_distance(Moments.from_features(real), Moments.from_features(fake), **rule)
        interval = bootstrap_interval(real, fake, seed=0, **rule)
        return {"fvd": round(result.value, 2), "fvd_interval": [round(end, 2) for end in interval]}

    def _motion(self, clips: Clips) -> dict[str, float]:
        real, fake = ([clip_motion(clip) for clip in one] for one in (self.reference, clips))
        return {key: round(value, 4) for key, value in compare_motion(real, fake).items()}

    def _fid(self, name: str, clips: Callable[[], Clips]) -> Scores:
        real = self.frame_features("reference", lambda: self.reference)
        fake = self.frame_features(name, clips)
        values = [
            frechet_distance(Moments.from_features(real[:, f]), Moments.from_features(fake[:, f]), ddof=1).value
            for f in range(len(self.fid_frames))
        ]
        return {
            "fid": round(float(np.mean(values)), 2),
            "fid_frames": self.fid_frames,
            "fid_per_frame": [round(value, 2) for value in values],
        }

    def _errors(self, clips: Clips) -> Scores:
        """PSNR (dB) and LPIPS against the true continuation, per generated frame, mean over clips."""
        given = self.world.given
        squared = (self.context[:, given:].astype(np.float32) - clips[:, given:]) ** 2
        psnr_NT = 10 * np.log10(255**2 / np.maximum(squared.mean(axis=(2, 3, 4)), 1e-3))
        lpips_NT = np.stack(
            [
                self._lpips(_unit(real[given:]), _unit(fake[given:])).numpy()
                for real, fake in zip(self.context, clips, strict=True)
            ]
        )
        return {
            "psnr": round(float(psnr_NT.mean()), 3),
            "lpips": round(float(lpips_NT.mean()), 4),
            "psnr_per_frame": [round(float(value), 3) for value in psnr_NT.mean(axis=0)],
            "lpips_per_frame": [round(float(value), 4) for value in lpips_NT.mean(axis=0)],
        }

    @cached_property
    def _i3d(self) -> I3D:
        return I3D.pretrained().eval()

    @cached_property
    def _inception(self) -> Inception:
        return Inception.pretrained().eval()

    @cached_property
    def _lpips(self) -> LPIPS:
        return LPIPS.pretrained("alex").eval()

    def kept_figures(self, name: str, compute: Callable[[], Scores]) -> Scores:
        """Figures that are computed once."""
        path = self.folder / "scores" / f"{name}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, compute())
        return read_json(path)

    def _kept(self, kind: str, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        path = self.folder / kind / f"{name}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        with torch.no_grad():
            array = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return array


def _unit(frames_THWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames_THWC).movedim(-1, 1).float() / 127.5 - 1
