"""Where the figures of a run are shown besides its own `log.jsonl`: a tracker by name, through accelerate."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from magi_video.errors import MagiError, first_line
from magi_video.recipe import Preset

PROJECT = "magi-video"


def find_tracker(name: str) -> str | None:
    """A preset's `tracker` as accelerate wants it (`log_with`).

    Raises:
        MagiError: its library is not installed.
    """
    if name == "none":
        return None
    if name not in [str(one) for one in get_available_trackers()]:
        raise MagiError(f"tracker {name} is not installed: pip install {name}, or choose another (--tracker none)")
    return name


def start_tracker(accelerator: Accelerator, preset: Preset, out: Path, step: int) -> None:
    """Begin, or go on with, the tracked run of a training's folder.

    Args:
        accelerator: made with `log_with=find_tracker(preset.train.tracker)`.
        preset: recorded with the run.
        out: the training's folder; its name is the run's, and the same folder is the same run.
        step: steps that are made already; those after it are written again.

    Raises:
        MagiError: the tracker cannot be started (nobody is logged in, say).
    """
    name = preset.train.tracker
    if name == "none":
        return
    if name == "tensorboard":
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1}})
        return
    settings: dict[str, Any] = {"name": out.resolve().name, "resume": "allow"}
    if name == "wandb":
        settings["id"] = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    config = json.loads(json.dumps(asdict(preset)))
    try:
        accelerator.init_trackers(PROJECT, config=config, init_kwargs={name: settings})
    except Exception as error:  # each library has its own kinds
        raise MagiError(f"tracker {name} cannot be started ({first_line(error)})") from error
