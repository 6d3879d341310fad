"""`magi record GAME`: the options are the arguments of `record`."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from magi_video.cli.parsing import OutFolder, arguments, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.errors import counted


@dataclass(frozen=True)
class Record:
    """Record gameplay: one video file an episode and the actions beside it, the same for the same seed."""

    game: Annotated[Positional[str], arg(metavar="GAME")]
    """`vizdoom/my_way_home`, `ALE/Breakout-v5`, … or any registered Gymnasium id that renders RGB; `shapes`: moving
    shapes with captions."""
    out: OutFolder
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
    json: bool = False
    """Print the summary as JSON."""


def main(argv: list[str]) -> None:
    """Parse, record, print."""
    settings = parse(Record, "magi record", argv)
    with TaskDisplay("starting the game") as display:
        from magi_video.recordings.record import record

        display.stage("recording episodes", settings.episodes)
        summary = record(**arguments(settings, "json"), progress=lambda done, *_: display.advance(done))
    if settings.json:
        print(json.dumps(dataclasses.asdict(summary), default=str))
    else:
        print(
            f"{summary.folder}: {counted(summary.episodes, 'episode')} ({summary.kept} were there), "
            f"{counted(summary.frames, 'frame')} at {summary.frame_rate:g} frames/s, "
            + (f"actions {', '.join(summary.action_names)}" if summary.action_names else "no actions")
        )
