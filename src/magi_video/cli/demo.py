"""`magi demo`: the shipped model, from a shipped first frame, under shipped controls."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from magi_video.cli.generate import Generate, generate, summary
from magi_video.errors import MagiError
from magi_video.loading import SHIPPED

CONTROLS = "TURN_LEFT*10 MOVE_FORWARD+TURN_LEFT*12 ATTACK*6 TURN_RIGHT*14 MOVE_LEFT+TURN_RIGHT*14 ATTACK*4"


@dataclass(frozen=True)
class Demo:
    """Generate a video of Doom with the shipped model and say where it is and how fast it went."""

    out: Path = Path("demo")
    """Folder for the results."""
    frames: int = 120
    """Frames of the video."""
    num: int = 1
    """Videos to make."""
    seed: int = 0
    """Of the first; the next ones have seed + 1, seed + 2, …"""
    interval: int = 2
    """Game tics (1/35 s) from one frame to the next."""
    setting: str = "exact"
    """Speed setting: exact, balanced, fast or realtime."""
    json: Annotated[bool, arg(name="json")] = False
    """Print the content of generate.json."""


def main(argv: list[str]) -> None:
    """Parse, generate, tell."""
    import tyro

    from magi_video.data.files import replacing

    demo = tyro.cli(Demo, prog="magi demo", args=argv)
    first_frame = SHIPPED / "doom" / "first_frame.png"
    if not first_frame.is_file():
        raise MagiError(f"{first_frame}: the package came without its model; install it anew")
    report = generate(
        Generate(
            model="doom",
            out=demo.out,
            first_frame=first_frame,
            frames=demo.frames,
            interval=demo.interval,
            setting=demo.setting,
            actions=CONTROLS,
            num=demo.num,
            seed=demo.seed,
        )
    )
    with replacing(demo.out / first_frame.name) as part:  # to begin another video from
        shutil.copyfile(first_frame, part)
    print(json.dumps(report) if demo.json else summary(report, demo.out))
