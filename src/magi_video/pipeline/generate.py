"""Videos generated into a folder: what `magi generate` does."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_video.data.clips import clip_frames
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.fast.beside import items_ahead, work_beside
from magi_video.files.atomic import growing_array, write_json
from magi_video.files.lock import only_writer
from magi_video.pipeline.actions import find_actions
from magi_video.pipeline.asked import find_label
from magi_video.pipeline.inputs import check_seeds
from magi_video.pipeline.options import GenerateOptions
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import make_ready
from magi_video.video.image import contact_sheet, read_image, spread_frames, write_image
from magi_video.video.video import VideoWriter, inspect_video, read_frames

VIEW_SIDE = 256
"""Small videos are enlarged, by a whole number, until their short side has this many pixels."""
SHEET_FRAMES = 30
"""Frames of each video on the contact sheet."""
STAGE = "generating frames"


def generate(
    model: str,
    out: Path,
    options: GenerateOptions,
    *,
    progress: Callable[[str, int, int | None], object] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Generate videos and write them into a folder, with a contact sheet and a record.

    Once all is checked the folder is locked until the end: another command that writes there would leave videos of
    both. Each of many processes makes its share of the videos; they are those of one process, but for the rounding of
    sums over batches of another size.

    Args:
        model: folder, hub id, or the name of a shipped model.
        out: the folder.
        options: what is generated, and how.
        progress: called with (stage, frames done, frames in all; None where a stage has none).
        say: called with what is worth a line.

    Returns:
        What `generate.json` holds; nothing in processes other than the main one.

    Raises:
        MagiError: there is no such model, it does not take what is given, or the folder is in use.
    """
    check_seeds(options.seed, options.num)
    processes = Processes(options.device)
    share = -(-options.num // processes.count)
    ready = make_ready(
        model, options.precision, processes, options.threads, share, options.sampling,
        "torch" if options.compile else options.engine, options.frames, say, lambda stage: progress(stage, 0, None),
    )  # fmt: skip
    pipe = ready.pipe
    say(str(ready))
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
        stream = pipe.stream(**request, num_videos=len(mine), generator=generators, output_type="latent")
        if chosen.mask_steps > (most := pipe.most_mask_steps(options.frames)):
            say(f"mask steps: {most}, one for each token, not {chosen.mask_steps}")
        if options.compile:
            say("compiling, which takes a minute or two the first time")
            problem = pipe.compile(**request, num_videos=len(mine))
            say(f"not compiled: {problem}" if problem else "compiled")
        paths = [out / names[index] for index in mine]
        if processes.main:
            held.enter_context(only_writer(out))
        with growing_files(options, paths, rate, (pipe.config.height, pipe.config.width)) as (add_frame, kept):
            progress(STAGE, 0, options.frames)

            def write(latents: Iterator[Tensor]) -> None:
                began = time.perf_counter()
                for frame_BHWC in pipe.decode_stream(latents, options.frames):
                    add_frame((frame_BHWC * 255).round().astype(np.uint8))
                    seconds.append((now := time.perf_counter()) - began)
                    progress(STAGE, len(seconds), options.frames)
                    began = now

            work_beside(write, stream, items_ahead(processes.device))
        return seconds, list(np.stack(kept, axis=1))

    with ExitStack() as held:
        shares = processes.to_main(make_share)
        if not processes.main:
            return {}
        # The slowest process's time is the time of a frame.
        seconds = [max(times) for times in zip(*(times for times, _ in shares if times), strict=True)]
        sheets = [shares[index % processes.count][1][index // processes.count] for index in range(options.num)]
        numbers = spread_frames(options.frames, SHEET_FRAMES)
        sheet = contact_sheet(sheets, columns=10, max_frames=SHEET_FRAMES, numbers=numbers)
        write_image(out / "contact.png", sheet)
        given: dict[str, Any] = {"model": model, "out": out} | asdict(options)
        given |= {name: getattr(chosen, name) for name in given.pop("sampling")}
        report = {
            "model": model,
            "settings": {name: str(value) if isinstance(value, Path) else value for name, value in given.items()},
            "seeds": seeds,
            "files": names,
            "frame_rate": rate,
            "height": pipe.config.height,
            "width": pipe.config.width,
            "device": str(pipe.device),
            "precision": ready.choice.precision,
            "threads": ready.threads,
            "engine": pipe.engine.name,
            "seconds_per_frame": [round(value, 6) for value in seconds],
            "seconds": round(sum(seconds), 3),
        }
        write_json(out / "generate.json", report)
    return report


@contextmanager
def growing_files(
    options: GenerateOptions, paths: list[Path], rate: float, size: tuple[int, int]
) -> Iterator[tuple[Callable[[np.ndarray], None], list[np.ndarray]]]:
    """Gives a function that takes one frame of every video, uint8 `[num, H, W, 3]`, and lets all files grow by it; and
    the list of the frames that are kept for the contact sheet.

    So memory does not depend on the number of frames: all others are not kept. Each file is there when it is complete;
    after an error or an interruption nothing is left of them.
    """
    numbers, kept = spread_frames(options.frames, SHEET_FRAMES), list[np.ndarray]()
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


def read_inputs(options: GenerateOptions, pipe: MagiVideoPipeline) -> dict[str, Any]:
    """The given frames and actions, read and checked, as arguments of the pipeline."""
    inputs: dict[str, Any] = {}
    if options.first_frame:
        inputs["image"] = read_image(options.first_frame)
    if options.context:
        count = 1 if options.context_frames is None else options.context_frames
        held = inspect_video(options.context).num_frames
        indices = clip_frames(0, options.interval, count) if options.interval > 0 else []
        if not indices or indices[-1] >= held:
            raise MagiError(
                f"{options.context}: {count} context frames at interval {options.interval} do not fit its {held} frames"
            )
        inputs["video"] = read_frames(options.context, indices)
    if options.actions is not None:
        inputs["actions"] = find_actions(options.actions, pipe.config.action_names, options.frames, options.interval)
    if options.label is not None:
        inputs["label"] = find_label(options.label, pipe.config.class_names)
    return inputs
