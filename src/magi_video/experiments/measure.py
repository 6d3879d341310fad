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
from safetensors.torch import load_file, save_file

from magi_video.codecs.base import Codec
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.evaluation.baselines import through_codec
from magi_video.evaluation.features import Detectors, full_precision, video_features
from magi_video.evaluation.frechet import Moments, bootstrap_interval, frechet_distance
from magi_video.evaluation.measures import clip_motion, compare_motion
from magi_video.evaluation.paired import paired_errors
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.experiments.clips import Clips, RealSet, real_sets, training_set
from magi_video.experiments.inverse import InverseDynamics, Keys, score_keys, train_inverse
from magi_video.experiments.oracle import balls
from magi_video.experiments.runs import Workplace
from magi_video.fast.kernel_choice import choose_kernels, generation_kernels, missing_kernels, settle_kernels
from magi_video.fast.probes import choose_precision
from magi_video.files.atomic import replacing, write_array, write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json
from magi_video.pipeline.pipeline import MagiVideoPipeline

BATCH = 32
DETECTOR_RECORD, KERNEL_RECORD = "precision.json", "kernels.json"
TIMED_FRAMES = 12
INVERSE_CLIPS = 256
"""Of the training set, from which the network that reads keys learns."""
PROTOCOL = PROTOCOLS["small"]
Scores = dict[str, Any]


class Measures:
    """The scores of one world.

    Args:
        workplace: the world's folder.
        fid_frames: at how many frames of a clip, evenly spread over the generated ones, the per-frame FID is taken.
        detectors: networks to use instead of the pretrained ones.
    """

    def __init__(self, workplace: Workplace, fid_frames: int = 2, detectors: Detectors | None = None) -> None:
        self.workplace, self.world, self.folder = workplace, workplace.world, workplace.folder
        self._detectors = detectors
        given, frames = self.world.given, self.world.frames
        self.fid_frames = [int(t) for t in np.linspace(given, frames - 1, fid_frames).round()]

    def at(self, workplace: Workplace) -> "Measures":
        """The same of another folder."""
        return Measures(workplace, len(self.fid_frames), self._detectors)

    @cached_property
    def sets(self) -> tuple[RealSet, RealSet]:
        """Reference set and context set."""
        return real_sets(self.workplace)

    @property
    def reference(self) -> Clips:
        """What all scores are taken against."""
        return self.sets[0].clips

    @property
    def context(self) -> Clips:
        """The clips that models continue."""
        return self.sets[1].clips

    @cached_property
    def codec(self) -> Codec:
        """The one that all models of the world share."""
        self.workplace.prepare()
        return load_codec(self.folder / "prepared" / "codec")

    def settle(self) -> None:
        """Let models compute by `kernels` from now on; a training in between has settled its own."""
        settle_kernels(generation_kernels("float32"), kept=self.kernels)

    def load(self, model: Path) -> MagiVideoPipeline:
        """A model that computes by `kernels`."""
        self.settle()
        return MagiVideoPipeline.from_pretrained(model)

    @cached_property
    def kernels(self) -> dict[str, bool]:
        """Which kernels models are asked to compute by: one choice for all samples in the folder, recorded there."""
        path, names = self.folder / "samples" / KERNEL_RECORD, generation_kernels("float32")
        chosen = choose_kernels(names, read_json(path) if path.is_file() else None)
        if line := missing_kernels(chosen, settle_kernels(names, kept=chosen)):
            self.workplace.display.say(line)
        ensure_folder(path.parent)
        write_json(path, chosen)
        return chosen

    def samples(
        self,
        name: str,
        model: Path,
        context: Clips | None = None,
        num_frames: int | None = None,
        given: int | None = None,
        **settings: Any,
    ) -> Clips:
        """A model's continuations of the context set, or of other clips; settings are `MagiVideoPipeline`'s.

        In a world that is played, the context set is continued under the keys that were held in it. Of each clip
        `given` frames are given, or as many as the world gives; none: as many videos as there are clips, from nothing.
        """
        real = self.sets[1] if context is None else RealSet(context)
        length, given = num_frames or self.world.frames, self.world.given if given is None else given
        return self.array("samples", name, lambda: self._generate(name, model, real, length, given, settings))

    def _generate(
        self, name: str, model: Path, real: RealSet, length: int, count: int, settings: dict[str, Any]
    ) -> Clips:
        pipe = self.load(model)
        pipe.set_progress_bar_config(disable=True)
        given, actions_TNA = real.clips[:, :count], real.actions
        if actions_TNA is not None:  # in the order of the model's own columns
            actions_TNA = actions_TNA[:, :, [real.names.index(action) for action in pipe.config.action_names]]
        done: list[Clips] = []
        display = self.workplace.watched
        display.stage(f"{self.world.name}: generating clips of {name}", len(given))
        for first in range(0, len(given), BATCH):
            batch = given[first : first + BATCH]
            seeds = range(first, first + len(batch))
            frames = pipe(
                video=batch if count else None,
                num_videos=1 if count else len(batch),
                num_frames=length,
                actions=None if actions_TNA is None else actions_TNA[:length, first : first + len(batch)],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                **{"interval": self.world.interval} | settings,
            ).frames
            done.append((frames * 255).round().astype(np.uint8))
            display.advance(first + len(batch))
        made = np.concatenate(done)
        made[:, :count] = given  # as they are, not as the codec shows them
        return made

    def seconds_per_frame(self, model: Path, settings: dict[str, Any]) -> float:
        """Median seconds of a generated frame of a single video, with decoding; of `TIMED_FRAMES`."""
        pipe = self.load(model)
        given = self.context[:1, : self.world.given]
        moments = [time.perf_counter()]
        frames = len(given[0]) + TIMED_FRAMES
        for _ in pipe.stream(video=given, num_frames=frames, interval=self.world.interval, **settings):
            moments.append(time.perf_counter())
        return round(float(np.median(np.diff(moments)[len(given[0]) + 1 :])), 5)

    @cached_property
    def low_detector(self) -> bool:
        """Whether I3D's convolutions run in bfloat16: one choice for all features in the folder, recorded there."""
        path, asked = self.folder / "features" / DETECTOR_RECORD, self.world.detector_precision
        if asked == "auto" and path.is_file():
            asked = str(read_json(path).get("precision", asked))  # type: ignore[assignment]
        elif asked == "auto" and any(path.parent.glob("*.npy")):
            asked = "bf16"  # of an earlier version, which took no other
        choice = choose_precision(asked, "cpu", "detector", reason="as the features there are")
        self.workplace.display.say(f"I3D: {choice}")
        ensure_folder(path.parent)
        write_json(path, {"precision": choice.precision, "why": choice.why})
        return choice.precision == "bf16"

    def features(self, name: str, clips: Callable[[], Clips]) -> np.ndarray:
        """I3D logits [N, 400] of a clip set; in bfloat16 where this CPU is faster at it."""

        low = self.low_detector  # chosen here, before several threads want it

        def detect(video: torch.Tensor) -> torch.Tensor:
            # Inside the detector's call: autocast holds for the thread that enters it, and clips are done in several.
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return self.detectors.video(video)

        def compute() -> np.ndarray:
            given, display = clips(), self.workplace.watched
            display.stage(f"{self.world.name}: features of {name}", len(given))
            return video_features(given, PROTOCOL, detect, progress=lambda done, total: display.advance(done))

        return self.array("features", name, compute)

    def frame_features(self, name: str, clips: Callable[[], Clips]) -> np.ndarray:
        """Inception features [N, F, 2048] of the frames at `fid_frames`."""

        def compute() -> np.ndarray:
            network = self.detectors.image
            assert network is not None
            with full_precision():
                picked = clips()[:, self.fid_frames]
                return np.stack([network(torch.from_numpy(clip)).float().cpu().numpy() for clip in picked])

        return self.array("frame-features", name, compute)

    def score(self, name: str, clips: Callable[[], Clips], *, paired: bool = False, fid: bool = False) -> Scores:
        """FVD with its interval, motion, and on demand the per-frame FID and the errors against the truth."""
        path = self.folder / "scores" / f"{name}.json"
        kept = read_json(path) if path.is_file() else {}
        wanted = {"fvd"} | ({"psnr"} if paired else set()) | ({"fid"} if fid else set())
        if wanted <= set(kept):
            return kept
        self.workplace.watched.stage(f"{self.world.name}: scoring {name}")
        if "fvd" not in kept:
            kept |= self.frechet(name, clips) | {"motion": self._motion(clips())}
        if paired and "psnr" not in kept:
            kept |= self._errors(clips())
        if fid and "fid" not in kept and self.detectors.image is not None:
            kept |= self._fid(name, clips)
        ensure_folder(path.parent)
        write_json(path, kept)
        return kept

    def oracle(self, name: str, clips: Callable[[], Clips], given: int | None = None) -> Scores:
        """What the world's oracle says of continuations of the context set, as "oracle"; nothing where it has none.

        Args:
            name, clips: as of `score`.
            given: frames of each clip that were given; as many as the world gives if not said.
        """
        if self.world.oracle is None:
            return {}
        first, read = self.world.given if given is None else given, ORACLES[self.world.oracle]
        return {"oracle": self.kept_figures(f"{name}-oracle", lambda: read(self, clips(), first))}

    def read_balls(self, clips: Clips, given: int) -> Scores:
        """Where the balls are, and whether they are there."""
        return balls(clips, self.context, given)

    def read_keys(self, clips: Clips, given: int) -> Scores:
        """Whether the frames follow the recorded actions.

        Raises:
            MagiError: the world has none.
        """
        actions_TNA = self.sets[1].actions
        if actions_TNA is None:
            raise MagiError(f"world {self.world.name!r} has no actions, which its oracle reads")
        asked = Keys.read(actions_TNA.transpose(1, 0, 2), self.sets[1].names)
        return score_keys(self.inverse_dynamics, clips, asked, given)

    @cached_property
    def inverse_dynamics(self) -> InverseDynamics:
        """The network that reads keys from pixels, trained once on the training set and kept in the folder."""
        path = self.folder / "inverse_dynamics.safetensors"
        if path.is_file():
            network = InverseDynamics()
            network.load_state_dict(load_file(path))
            return network.eval()
        real = training_set(self.workplace, INVERSE_CLIPS)
        assert real.actions is not None
        self.workplace.display.say(f"{self.world.name}: training the network that reads keys from pixels")
        shown = np.stack([through_codec(clip, self.codec) for clip in real.clips])
        keys = Keys.read(real.actions.transpose(1, 0, 2), real.names)
        network = train_inverse(shown, keys, self.world.oracle_steps)
        with replacing(path) as part:
            save_file(network.state_dict(), part)
        return network

    def frechet(
        self, name: str, clips: Callable[[], Clips], parts: int = 1, reference: tuple[str, Clips] | None = None
    ) -> Scores:
        """FVD against the reference set, or another one by its name, and its 95 % interval; of windows of the same
        videos, so many after one another, the interval over videos."""
        against, chosen = reference or ("reference", None)
        real = self.features(against, lambda: self.reference if chosen is None else chosen)
        fake = self.features(name, clips)
        rule: Any = {"ddof": PROTOCOL.ddof, "root": PROTOCOL.root}
        result = frechet_distance(Moments.from_features(real), Moments.from_features(fake), **rule)
        interval = bootstrap_interval(real, fake, seed=0, parts=parts, **rule)
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
        """PSNR (dB), SSIM and LPIPS against the true continuation, per generated frame, mean over clips."""
        given = self.world.given
        with full_precision():
            errors = [
                paired_errors(real[given:], fake[given:], self.detectors.perceptual)
                for real, fake in zip(self.context, clips, strict=True)
            ]
        scores: Scores = {}
        for name in errors[0]:
            values_NT = np.stack([error[name] for error in errors])
            scores[name] = round(float(values_NT.mean()), 4)
            scores[f"{name}_per_frame"] = [round(float(value), 4) for value in values_NT.mean(axis=0)]
        return scores

    @cached_property
    def detectors(self) -> Detectors:
        """The networks; LPIPS and FID are left out where their weights cannot be had."""
        return self._detectors or Detectors.load(torch.device("cpu"), image=self.world.fid)

    def kept_figures(self, name: str, compute: Callable[[], Scores]) -> Scores:
        """Figures that are computed once."""
        path = self.folder / "scores" / f"{name}.json"
        if not path.is_file():
            ensure_folder(path.parent)
            write_json(path, compute())
        return read_json(path)

    def array(self, kind: str, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array that is computed once, of the folder `kind`."""
        path = self.folder / kind / f"{name}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        array = compute()  # which may train a model first
        write_array(path, array)
        return array


Oracle = Callable[[Measures, Clips, int], Scores]
ORACLES: dict[str, Oracle] = {"balls": Measures.read_balls, "keys": Measures.read_keys}
"""By the name that a world has for its oracle."""
