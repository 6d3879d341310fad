"""Who is told how a long task goes."""

from typing import Protocol


class Display(Protocol):
    """Whoever wants to see how it goes."""

    def say(self, text: str) -> None:
        """A line of news."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins: "codec", "latents" or "model"."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """So much of the stage is done."""


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def stage(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Nothing."""
