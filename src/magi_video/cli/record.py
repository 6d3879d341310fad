"""`magi record GAME`: the options are the fields of `Record`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay


@dataclass(frozen=True)
class Record:
    """Record gameplay: one video file an episode and the actions beside it, the same for the same seed."""

    game: Annotated[Positional[str], arg(metavar="GAME")]
    """`vizdoom/my_way_home`, `ALE/Breakout-v5`, … or any registered Gymnasium id that renders RGB."""
    out: Path
    """Folder for the files; episodes that are there already are kept."""
    episodes: int = 10
    """Episodes that the folder shall hold."""
    seed: int = 0
    """Of the game and of the player."""
    max_frames: int = 2100
    """Longest episode, in frames."""
    height: int = 64
    """Of a frame, in pixels."""
    width: int = 64
    """Of a frame, in pixels."""
    frame_skip: int = 1
    """Steps of the game from one frame to the next."""
    json: Annotated[bool, arg(name="json")] = False
    """Print the summary as JSON."""


def main(argv: list[str]) -> None:
    """Parse, record, print."""
    settings = parse(Record, "magi record", argv)
    with TaskDisplay("starting the game") as display:
        from magi_video.recordings.record import record

        display.stage("recording episodes", settings.episodes)
        summary = record(
            settings.game,
            settings.out,
            episodes=settings.episodes,
            seed=settings.seed,
            max_frames=settings.max_frames,
            height=settings.height,
            width=settings.width,
            frame_skip=settings.frame_skip,
            progress=lambda done, total, frames: display.advance(done),
        )
    if settings.json:
        facts = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(summary).items()
        }
        print(json.dumps(facts))
    else:
        print(
            f"{summary.folder}: {summary.episodes} episodes ({summary.kept} were there), {summary.frames} frames "
            f"at {summary.frame_rate:g} frames/s, actions {', '.join(summary.action_names)}"
        )
