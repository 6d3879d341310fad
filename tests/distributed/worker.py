"""One of several processes: runs a list of jobs one after the other. Many in one start, for starting is slow.

A training: {"preset": recipe as JSON, "data": folder, "out": folder, "stop": null or [process, step, signal's number]}.
Any other command: {"command": [arguments of magi], "out": folder}. What came of it goes to OUT/told.json, and the
kernels that computed to OUT/kernels.json. All processes but the main one would take kernels that round otherwise.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch

from magi_video.cli import main
from magi_video.distributed import Processes
from magi_video.fast.kernel_choice import KERNELS, Kernel
from magi_video.recipe import Preset
from magi_video.settings import from_json
from magi_video.training.display import Silent
from magi_video.training.run import train
from magi_video.training.stopping import StoppedError, StopSignals


class Signaller(Silent):
    """Sends a process a signal when it has done a step."""

    def __init__(self, process: int, step: int, number: int) -> None:
        self.mine, self.step, self.number = Processes().index == process, step, number

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        if self.mine and figures and done == self.step:
            os.kill(os.getpid(), self.number)


def run(job: dict[str, Any]) -> str:
    if "command" in job:
        return f"exit {main(job['command'])}"
    preset = from_json(Preset, job["preset"], "job")
    display = Signaller(*job["stop"]) if job["stop"] else Silent()
    with StopSignals() as signals:
        try:
            train(preset, job["data"], job["out"], display=display, signals=signals)
        except StoppedError as error:
            return f"{error.exit_code}: {error}"
    return "trained"


def run_all(jobs: list[dict[str, Any]]) -> None:
    """Every job, by all processes together."""
    processes = Processes()
    results = processes.each
    Kernel.pays = property(lambda _: not processes.main)  # type: ignore[assignment, method-assign, misc]
    for job in jobs:
        told = results(lambda job=job: run(job))  # type: ignore[misc]
        kernels = results(lambda: [torch.get_float32_matmul_precision(), *(one.settled for one in KERNELS.values())])
        if processes.main:
            for name, found in (("told.json", told), ("kernels.json", kernels)):
                Path(job["out"], name).write_text(json.dumps(found), encoding="utf-8")
