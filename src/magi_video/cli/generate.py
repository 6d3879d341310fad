"""`magi generate MODEL`: the options are the fields of `Generate`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from tyro.conf import OmitArgPrefixes, Positional, arg

from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.errors import MagiError
from magi_video.fast.precision import Precision
from magi_video.sampling.sampling import Sampling
from magi_video.settings import settings

if TYPE_CHECKING:
    import numpy as np

    from magi_video.pipeline.pipeline import MagiVideoPipeline

VIEW_SIDE = 256
"""Small videos are enlarged, by a whole number, until their short side has this many pixels."""
SHEET_FRAMES = 30
"""Frames of each video on the contact sheet."""


@settings
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
    sampling: OmitArgPrefixes[Sampling] = Sampling()
    """How a frame is sampled."""
    actions: str | None = None
    """What is done, for models with actions: "MOVE_FORWARD*30 MOVE_FORWARD+TURN_LEFT*12 NONE*5", over and over; or the
    .actions.jsonl file of a recording. Not said: unknown."""
    label: str | None = None
    """Class of the videos, its name or its number, for models with labels (magi info lists the classes)."""
    text: str | None = None
    """What the videos show, in words, for models with text."""
    negative_text: str | None = None
    """What guidance leads away from; not said: from videos of which nothing is known."""
    num: Annotated[int, Field(ge=1, le=10_000)] = 1
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
    """Parse, generate, print."""
    options = parse(Generate, "magi generate", argv)
    report = generate(options)
    if not is_main_process():
        return
    if options.json:
        print(json.dumps(report))
    else:
        print(summary(report, options.out))


def generate(options: Generate) -> dict[str, Any]:
    """Generate, and show how it goes; see `make_videos`."""
    with TaskDisplay("loading the model") as display, ExitStack() as held:
        return make_videos(options, display, held)


def make_videos(options: Generate, display: TaskDisplay, held: ExitStack) -> dict[str, Any]:
    """Generate as the settings say, write the files, return what `generate.json` holds.

    Once all is checked the folder of the results is claimed, for as long as `held` lasts: another command that writes
    there would leave videos of both.

    Of many processes each makes its share of the videos; they are those of one process, but for the rounding of sums
    over batches of another size.
    """
    import numpy as np
    import torch

    from magi_video.distributed import Processes
    from magi_video.fast.threads import check_threads
    from magi_video.files.atomic import write_json
    from magi_video.files.lock import only_writer
    from magi_video.pipeline.inputs import check_seeds
    from magi_video.pipeline.ready import make_ready
    from magi_video.video.image import contact_sheet, write_image

    check_seeds(options.seed, options.num)
    check_threads(options.threads)
    processes = Processes(options.device)
    share = -(-options.num // processes.count)
    ready = make_ready(options.model, options.precision, processes, options.threads, share, sampling=options.sampling)
    pipe = ready.pipe
    if processes.main:
        print(ready, file=sys.stderr)
    pipe.transformer.check_interval(options.interval)
    chosen = pipe.resolve(options.sampling)
    seeds = [options.seed + index for index in range(options.num)]
    request = read_inputs(options, pipe) | {"sampling": options.sampling, "interval": options.interval}
    request |= {"text": options.text, "negative_text": options.negative_text}
    request |= {"num_frames": options.frames}
    rate = pipe.config.frame_rate / options.interval
    names = [f"sample_{index:03d}.mp4" for index in range(options.num)]

    def make_share() -> tuple[list[float], list[np.ndarray]]:
        """This process's videos: seconds of every frame, and each video's frames for the contact sheet."""
        mine, seconds = processes.mine(options.num), list[float]()
        if not mine:
            return [], []
        generators = [torch.Generator().manual_seed(seeds[index]) for index in mine]
        stream = pipe.stream(**request, num_videos=len(mine), generator=generators)
        if processes.main and chosen.mask_steps > (most := pipe.most_mask_steps(options.frames)):
            print(f"mask steps: {most}, one for each token, not {chosen.mask_steps}", file=sys.stderr)
        if options.compile:
            compile_aloud(pipe, request | {"num_videos": len(mine)})
        paths = [options.out / names[index] for index in mine]
        if processes.main:
            held.enter_context(only_writer(options.out))
        with growing_files(options, paths, rate, (pipe.config.height, pipe.config.width)) as (add_frame, kept):
            display.stage("generating frames", options.frames)
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
    sheets = [shares[index % processes.count][1][index // processes.count] for index in range(options.num)]
    sheet = contact_sheet(sheets, columns=10, max_frames=SHEET_FRAMES, numbers=sheet_frames(options.frames))
    write_image(options.out / "contact.png", sheet)
    given = asdict(options)
    given |= {name: getattr(chosen, name) for name in given.pop("sampling")}
    report = {
        "model": options.model,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in given.items()},
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
    write_json(options.out / "generate.json", report)
    return report


def compile_aloud(pipe: MagiVideoPipeline, request: dict[str, Any]) -> None:
    """Compile the pipeline for a request, and say how it went."""
    say = partial(print, file=sys.stderr) if is_main_process() else lambda *_: None
    say("compiling, which takes a minute or two the first time")
    problem = pipe.compile(**request)
    say(f"not compiled: {problem}" if problem else "compiled")


def sheet_frames(frames: int) -> list[int]:
    """Numbers of the frames on the contact sheet."""
    from magi_video.video.image import spread_frames

    return spread_frames(frames, SHEET_FRAMES)


@contextmanager
def growing_files(
    options: Generate, paths: list[Path], rate: float, size: tuple[int, int]
) -> Iterator[tuple[Callable[[np.ndarray], None], list[np.ndarray]]]:
    """Gives a function that takes one frame of every video, uint8 `[num, H, W, 3]`, and lets all files grow by it; and
    the list of the frames that are kept for the contact sheet.

    So memory does not depend on the number of frames: all others are not kept. Each file is there when it is complete;
    after an error or an interruption nothing is left of them.
    """
    import numpy as np

    from magi_video.files.atomic import growing_array
    from magi_video.video.video import VideoWriter

    numbers, kept = sheet_frames(options.frames), list[np.ndarray]()
    shape = (options.frames, *size, 3)
    with ExitStack() as files:
        movies = [files.enter_context(VideoWriter(path, rate, min_side=VIEW_SIDE)) for path in paths]
        arrays = [
            files.enter_context(growing_array(path.with_suffix(".npy"), shape, np.uint8))
            for path in (paths if options.save_arrays else ())
        ]

        def add(frame_BHWC: np.ndarray) -> None:
            if movies[0].num_frames in numbers:
                kept.append(frame_BHWC)
            for movie, frame in zip(movies, frame_BHWC, strict=True):
                movie.write(frame)
            for append, frame in zip(arrays, frame_BHWC, strict=False):
                append(frame[None])

        yield add, kept


def read_inputs(options: Generate, pipe: MagiVideoPipeline) -> dict[str, Any]:
    """The given frames and actions, read and checked."""
    from magi_video.data.clips import clip_frames
    from magi_video.video.image import read_image
    from magi_video.video.video import inspect_video, read_frames

    if options.first_frame and options.context:
        raise MagiError("give --first-frame or --context, not both")
    if options.context_frames is not None and not options.context:
        raise MagiError("--context-frames says how many frames of --context to take: give that too")
    inputs: dict[str, Any] = {}
    if options.first_frame:
        inputs["image"] = read_image(options.first_frame)
    if options.context:
        count = 1 if options.context_frames is None else options.context_frames
        held = inspect_video(options.context).num_frames
        indices = clip_frames(0, options.interval, count) if count > 0 and options.interval > 0 else []
        if not indices or indices[-1] >= held:
            raise MagiError(
                f"{options.context}: {count} context frames at interval {options.interval} do not fit its {held} frames"
            )
        inputs["video"] = read_frames(options.context, indices)
    if options.actions is not None:
        inputs["actions"] = read_actions_option(options, pipe.config.action_names)
    if options.label is not None:
        inputs["label"] = find_label(options.label, pipe.config.class_names)
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


def read_actions_option(options: Generate, names: list[str]) -> np.ndarray:
    """`--actions` as the action that leads to each frame, `[frames, A]`; of a recording, its first so many."""
    import numpy as np

    from magi_video.data.actions import read_actions
    from magi_video.files.json import read_text
    from magi_video.pipeline.actions import parse_actions

    assert options.actions is not None
    if not names:
        raise MagiError("this model takes no actions: it was trained without")
    if not options.actions.endswith(".jsonl"):
        return parse_actions(options.actions, names, options.frames)
    last = (options.frames - 1) * options.interval
    path = Path(options.actions)
    rows = sum(bool(line.strip()) for line in read_text(path).splitlines())  # the recording may be the longer
    recorded = read_actions(path, max(rows, last + 1)).columns(names)
    between = [recorded[start : start + options.interval].mean(axis=0) for start in range(0, last, options.interval)]
    return np.stack([np.zeros(len(names), np.float32), *between])


def summary(report: dict[str, Any], out: Path) -> str:
    """Where the results are and how fast they came."""
    seconds = report["seconds_per_frame"]
    count = len(seconds) * len(report["seeds"])
    return (
        f"{len(report['files'])} video(s) of {len(seconds)} frames in {report['seconds']:.1f} s "
        f"({count / report['seconds']:.1f} frames/s, {sum(seconds) / len(seconds):.3f} s a frame in the mean)\n"
        f"video:         {out / report['files'][0]}\n"
        f"contact sheet: {out / 'contact.png'}\n"
        f"figures:       {out / 'generate.json'}"
    )
