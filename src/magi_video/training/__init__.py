"""Training: the loop, its optimiser and guard, what it needs before it starts, what it shows."""

from magi_video.training.run import train
from magi_video.training.trainer import Trainer

__all__ = ["Trainer", "train"]
