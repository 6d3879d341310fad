"""Training: the loop, its optimiser and guard, what it needs before it starts, what it shows."""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

if TYPE_CHECKING:
    from magi_video.training.run import train
    from magi_video.training.trainer import Trainer

__all__ = ["Trainer", "train"]

# Loaded on first use: commands take signals and say what they do before torch is there.
__getattr__ = loader(__name__, {"Trainer": "trainer", "train": "run"})
