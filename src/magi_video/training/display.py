"""Where the progress of a long task is shown."""

from typing import Protocol

TITLES = {
    "videos": "looking through the videos",
    "codec": "training the codec",
    "latents": "encoding latents",
    "model": "training the model",
    "head inputs": "running the transformer for the conditions that the head learns from",
    "head samples": "sampling with the model's own head",
    "head": "distilling the head",
}
"""Stages of training, in words; others are called what they are."""


class Display(Protocol):
    """Shows the progress of a task."""

    def say(self, text: str) -> None:
        """A line of news."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins, one of `TITLES`, of so many steps; 0: there is nothing to do; None: unknown."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """So much of the stage is done."""


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Nothing."""


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever suits."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
