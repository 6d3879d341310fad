"""`magi generate MODEL`: the options are the fields of `Generate`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, arg

from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.errors import MagiError
from magi_video.fast.precision import Precision

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

VIEW_SIDE = 256
"""Small videos are enlarged, by a whole number, until their short side has this many pixels."""
MAX_VIDEOS = 10_000
"""Of one command."""
SHEET_FRAMES = 30
"""Frames of each video on the contact sheet."""


@dataclass(frozen=True)
class Generate:
    """Generate videos: `sample_000.mp4`, …, `contact.png` and `generate.json` (settings, seed, seconds of every frame).

    Small videos are enlarged for the eye by a whole number; --save-arrays keeps the frames as they are. Many processes
    (torchrun -m -- magi_video generate …) share the videos.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom", "atari")."""
    out: Path
    """Folder for the results."""
    first_frame: Path | None = None
    """Picture to begin from; another size is centre-cropped to the model's aspect and resized."""
    context: Path | None = None
    """Video to begin from instead. Neither: from nothing."""
    context_frames: int | None = None
    """Frames taken from it, `interval` apart; 1 if not said."""
    frames: int = 16
    """Frames of each video, given ones included."""
    interval: int = 1
    """Frames of the training videos' time from one frame to the next, 1…25."""
    setting: str = "exact"
    """Speed setting: exact, balanced, fast or realtime; the next five options override it."""
    mask_steps: int | None = None
    """Steps in which a frame's tokens appear."""
    denoise_steps: int | None = None
    """Steps of the diffusion head."""
    sampler: str | None = None
    """Of the head: ancestral, ddim, dpmsolver++ (epsilon head); euler, midpoint (flow head)."""
    first_step: int | None = None
    """Training step of the diffusion chain, 0…999, at which the sampler begins; 999 gives MAR's steps. Not said: the
    sampler's own (ancestral 990, ddim 950, dpmsolver++ 970)."""
    refresh: int | None = None
    """Mask steps from one that reads the whole frame to the next; in between only tokens that change are computed."""
    temperature: float = 1.0
    """Of the head's noise; 1 samples what the model learned."""
    actions: str | None = None
    """What is done, for models with actions: "MOVE_FORWARD*30 MOVE_FORWARD+TURN_LEFT*12 NONE*5", over and over; or the
    .actions.jsonl file of a recording. Not said: unknown."""
    label: str | None = None
    """Class of the videos, its name or its number, for models with labels (magi info tells the classes)."""
    text: str | None = None
    """What the videos show, in words, for models with text."""
    negative_text: str | None = None
    """What guidance leads away from; not said: from videos of which nothing is known."""
    guidance_scale: float = 1.0
    """Of classifier-free guidance: how strongly label and text are followed. 1 is none; any other doubles the work."""
    guidance_schedule: Literal["linear", "constant"] = "linear"
    """Of the scale: "linear", from 1 to it as a frame's tokens appear, or "constant"."""
    guide: tuple[Literal["label", "text", "action"], ...] = ("label", "text")
    """What guidance acts on."""
    num: int = 1
    """Videos to make, those of a process all at once."""
    seed: int = 0
    """Of the first video; the next ones have seed + 1, seed + 2, …"""
    save_arrays: bool = False
    """Write `sample_000.npy` too: uint8 frames × height × width × 3, without loss."""
    precision: Precision = "auto"
    """Of the weights; auto takes the quicker one on this machine and says which."""
    threads: int | None = None
    """CPU threads; if not said, one for a small model, else all cores."""
    compile: bool = False
    """Compile the transformer first, where there is a compiler; pays on GPUs, not on the CPUs it was measured on."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Annotated[bool, arg(name="json")] = False
    """Print the content of generate.json."""


def main(argv: list[str]) -> None:
    """Parse, generate, tell."""
    settings = parse(Generate, "magi generate", argv)
    report = generate(settings)
    if not is_main_process():
        return
    if settings.json:
        print(json.dumps(report))
    else:
        print(summary(report, settings.out))


def generate(settings: Generate) -> dict[str, Any]:
    """Generate, and show how it goes; see `make_videos`."""
    with TaskDisplay("loading the model") as display, ExitStack() as held:
        return make_videos(settings, display, held)


def make_videos(settings: Generate, display: TaskDisplay, held: ExitStack) -> dict[str, Any]:
    """Generate as the settings say, write the files, return what `generate.json` holds.

    Once all is checked the folder of the results is claimed, for as long as `held` lasts: another command that writes
    there would leave videos of both.

    Of many processes each makes its share of the videos; they are those of one process, but for the rounding of sums
    over batches of another size.
    """
    import torch

    from magi_video.distributed import Processes
    from magi_video.fast.threads import check_threads
    from magi_video.files.atomic import write_json
    from magi_video.files.lock import only_writer
    from magi_video.pipeline.inputs import check_seeds
    from magi_video.pipeline.ready import make_ready
    from magi_video.video.image import contact_sheet, write_image

    if not 1 <= settings.num <= MAX_VIDEOS:
        raise MagiError(f"num must lie in 1…{MAX_VIDEOS}, got {settings.num}")
    check_seeds(settings.seed, settings.num)
    check_threads(settings.threads)
    processes = Processes(pick_device(settings.device))
    share = -(-settings.num // processes.count)
    steps = {"num_mask_steps": settings.mask_steps, "num_denoise_steps": settings.denoise_steps}
    ready = make_ready(
        settings.model, settings.precision, processes, settings.threads, share, setting=settings.setting, **steps
    )
    pipe = ready.pipe
    if processes.main:
        print(ready, file=sys.stderr)
    pipe.transformer.check_interval(settings.interval)
    sampling: dict[str, Any] = steps | {
        "setting": settings.setting,
        "sampler": settings.sampler,
        "temperature": settings.temperature,
        "refresh": settings.refresh,
        "guidance_scale": settings.guidance_scale,
        "guidance_schedule": settings.guidance_schedule,
        "guide": settings.guide,
        "first_step": settings.first_step,
    }
    chosen = pipe.sampling_settings(**sampling)
    seeds = [settings.seed + index for index in range(settings.num)]
    asked = read_inputs(settings, pipe) | sampling | {"interval": settings.interval}
    asked |= {"text": settings.text, "negative_text": settings.negative_text}
    asked |= {"num_frames": settings.frames}
    rate = pipe.config.frame_rate / settings.interval
    names = [f"sample_{index:03d}.mp4" for index in range(settings.num)]

    def make_share() -> tuple[list[float], list[np.ndarray]]:
        """This process's videos: seconds of every frame, and each video's frames for the contact sheet."""
        mine, seconds = processes.mine(settings.num), list[float]()
        if not mine:
            return [], []
        generators = [torch.Generator().manual_seed(seeds[index]) for index in mine]
        stream = pipe.stream(**asked, num_videos=len(mine), generator=generators)
        if settings.compile:
            compile_aloud(pipe, asked | {"num_videos": len(mine)})
        paths = [settings.out / names[index] for index in mine]
        if processes.main:
            held.enter_context(only_writer(settings.out))
        with growing_files(settings, paths, rate, (pipe.config.height, pipe.config.width)) as (add_frame, kept):
            display.stage("generating frames", settings.frames)
            began = time.perf_counter()
            for frame_BHWC in stream:
                seconds.append(time.perf_counter() - began)
                add_frame((frame_BHWC * 255).round().astype(np.uint8))
                display.advance(len(seconds))
                began = time.perf_counter()
        return seconds, list(np.stack(kept, axis=1))

    shares = processes.to_main(make_share)
    if not processes.main:
        return {}
    # The slowest process's time is the time of a frame.
    seconds = [max(times) for times in zip(*(times for times, _ in shares if times), strict=True)]
    sheets = [shares[index % processes.count][1][index // processes.count] for index in range(settings.num)]
    sheet = contact_sheet(sheets, columns=10, max_frames=SHEET_FRAMES, numbers=sheet_frames(settings.frames))
    write_image(settings.out / "contact.png", sheet)
    report = {
        "model": settings.model,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
        | {"mask_steps": chosen.num_mask_steps, "denoise_steps": chosen.num_denoise_steps, "refresh": chosen.refresh}
        | {"sampler": chosen.sampler, "first_step": chosen.first_step},
        "seeds": seeds,
        "files": names,
        "frame_rate": rate,
        "height": pipe.config.height,
        "width": pipe.config.width,
        "device": str(pipe.device),
        "precision": ready.choice.precision,
        "threads": ready.threads,
        "seconds_per_frame": [round(value, 6) for value in seconds],
        "seconds": round(sum(seconds), 3),
    }
    write_json(settings.out / "generate.json", report)
    return report


def compile_aloud(pipe: "MagiVideoPipeline", asked: dict[str, Any]) -> None:
    """Compile the pipeline for what will be asked of it, and tell how it went."""
    say = partial(print, file=sys.stderr) if is_main_process() else lambda *_: None
    say("compiling, which takes a minute or two the first time")
    problem = pipe.compile(**asked)
    say(f"not compiled: {problem}" if problem else "compiled")


def sheet_frames(frames: int) -> list[int]:
    """Numbers of the frames on the contact sheet."""
    from magi_video.video.image import spread_frames

    return spread_frames(frames, SHEET_FRAMES)


@contextmanager
def growing_files(
    settings: Generate, paths: list[Path], rate: float, size: tuple[int, int]
) -> Iterator[tuple[Callable[[np.ndarray], None], list[np.ndarray]]]:
    """Gives a function that takes one frame of every video, uint8 `[num, H, W, 3]`, and lets all files grow by it; and
    the list of the frames that are kept for the contact sheet.

    So memory does not depend on the number of frames: all others are not kept. Each file is there when it is complete;
    after an error or an interruption nothing is left of them.
    """
    from magi_video.files.atomic import growing_array
    from magi_video.video.video import VideoWriter

    numbers, kept = sheet_frames(settings.frames), list[np.ndarray]()
    shape = (settings.frames, *size, 3)
    with ExitStack() as files:
        movies = [files.enter_context(VideoWriter(path, rate, min_side=VIEW_SIDE)) for path in paths]
        arrays = [
            files.enter_context(growing_array(path.with_suffix(".npy"), shape, np.uint8))
            for path in (paths if settings.save_arrays else ())
        ]

        def add(frame_BHWC: np.ndarray) -> None:
            if movies[0].num_frames in numbers:
                kept.append(frame_BHWC)
            for movie, frame in zip(movies, frame_BHWC, strict=True):
                movie.write(frame)
            for append, frame in zip(arrays, frame_BHWC, strict=False):
                append(frame[None])

        yield add, kept


def read_inputs(settings: Generate, pipe: "MagiVideoPipeline") -> dict[str, Any]:
    """The given frames and actions, read and checked."""
    from magi_video.data.clips import clip_frames
    from magi_video.video.image import read_image
    from magi_video.video.video import inspect_video, read_frames

    if settings.first_frame and settings.context:
        raise MagiError("give --first-frame or --context, not both")
    if settings.context_frames is not None and not settings.context:
        raise MagiError("--context-frames says how many frames of --context to take: give that too")
    inputs: dict[str, Any] = {}
    if settings.first_frame:
        inputs["image"] = read_image(settings.first_frame)
    if settings.context:
        count = 1 if settings.context_frames is None else settings.context_frames
        held = inspect_video(settings.context).num_frames
        indices = clip_frames(0, settings.interval, count) if count > 0 and settings.interval > 0 else []
        if not indices or indices[-1] >= held:
            raise MagiError(
                f"{settings.context}: {count} context frames at interval {settings.interval} "
                f"do not fit its {held} frames"
            )
        inputs["video"] = read_frames(settings.context, indices)
    if settings.actions is not None:
        inputs["actions"] = read_actions_option(settings, pipe.config.action_names)
    if settings.label is not None:
        inputs["label"] = find_label(settings.label, pipe.config.class_names)
    return inputs


def find_label(label: str, classes: list[str]) -> int:
    """The number of a class given by its name or its number; a name goes first."""
    if label in classes:
        return classes.index(label)
    try:
        return int(label)
    except ValueError:
        few = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "") or "none: it was trained without"
        raise MagiError(f"no class is called {label!r}; this model has {few}") from None


def read_actions_option(settings: Generate, names: list[str]) -> np.ndarray:
    """`--actions` as the action that leads to each frame, `[frames, A]`; of a recording, its first so many."""
    from magi_video.data.actions import read_actions
    from magi_video.files.json import read_text
    from magi_video.pipeline.actions import parse_actions

    assert settings.actions is not None
    if not names:
        raise MagiError("this model takes no actions: it was trained without")
    if not settings.actions.endswith(".jsonl"):
        return parse_actions(settings.actions, names, settings.frames)
    last = (settings.frames - 1) * settings.interval
    path = Path(settings.actions)
    rows = sum(bool(line.strip()) for line in read_text(path).splitlines())  # the recording may be the longer
    recorded = read_actions(path, max(rows, last + 1)).columns(names)
    between = [recorded[start : start + settings.interval].mean(axis=0) for start in range(0, last, settings.interval)]
    return np.stack([np.zeros(len(names), np.float32), *between])


def pick_device(name: str) -> str:
    """A device that is there: "auto" takes the fastest."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        there = ", ".join(device for device, present in available.items() if present)
        raise MagiError(f"device {name!r} is not available here: there is {there}")
    return name


def summary(report: dict[str, Any], out: Path) -> str:
    """Where the results are and how fast they came."""
    seconds = report["seconds_per_frame"]
    count = len(seconds) * len(report["seeds"])
    return (
        f"{len(report['files'])} video(s) of {len(seconds)} frames in {report['seconds']:.1f} s "
        f"({count / report['seconds']:.1f} frames/s, {np.mean(seconds):.3f} s a frame in the mean)\n"
        f"video:         {out / report['files'][0]}\n"
        f"contact sheet: {out / 'contact.png'}\n"
        f"figures:       {out / 'generate.json'}"
    )
