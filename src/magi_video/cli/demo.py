"""`magi demo`: a shipped model, from its shipped first frame, under shipped controls."""

import shutil
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from tyro.conf import Positional

from magi_video.cli.generate import generate
from magi_video.cli.parsing import OutFolder, parse
from magi_video.errors import MagiError
from magi_video.fast.engine_name import AskedEngine
from magi_video.fast.precision import Precision
from magi_video.files.folders import check_folder
from magi_video.files.weights import SHIPPED
from magi_video.pipeline.options import GenerateOptions
from magi_video.sampling.sampling import Sampling, Speed
from magi_video.settings import settings


class Show(NamedTuple):
    """How a world is shown unless something else is asked for."""

    interval: int
    actions: str
    """What is pressed, again and again."""


SHOWS = {
    "doom": Show(2, "TURN_LEFT*10 MOVE_FORWARD+TURN_LEFT*12 ATTACK*6 TURN_RIGHT*14 MOVE_LEFT+TURN_RIGHT*14 ATTACK*4"),
    "atari": Show(1, "RIGHT*10 DOWN*12 FIRE*6 LEFT*10 UP*12 RIGHTFIRE*8"),
    "coinrun": Show(1, "RIGHT*8 RIGHT+UP*14 RIGHT*6 NOTHING*4 LEFT+UP*12 LEFT*4 RIGHT+UP*24 UP*8"),
}


@settings
class Demo:
    """Generate a video with a shipped model and say where it is and how fast it went."""

    world: Annotated[Literal["doom", "atari", "coinrun"], Positional] = "doom"
    """Doom, Boxing as it was on the Atari 2600, or CoinRun of Procgen."""
    out: OutFolder | None = None
    """Folder for the results; by default demo for Doom, and demo/atari and demo/coinrun."""
    frames: Annotated[int, Field(ge=1)] = 120
    """Frames of the video."""
    num: Annotated[int, Field(ge=1)] = 1
    """Videos to make."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the first; the next ones have seed + 1, seed + 2, …"""
    interval: Annotated[int, Field(ge=1)] | None = None
    """Of the frames, in steps of the world: 1/35 s in Doom (2 by default), 1/15 s in Boxing and CoinRun
    (1)."""
    speed: Speed = "exact"
    """Compromise between quality and time."""
    precision: Precision = "auto"
    """Of the weights; auto takes the quicker one on this machine and says which."""
    engine: AskedEngine = "auto"
    json: bool = False
    """Print the content of generate.json."""


def default_folder(world: str) -> Path:
    """Where a world's results go if nothing is said: no two worlds share a folder."""
    return Path("demo") if world == "doom" else Path("demo") / world


def main(argv: list[str]) -> None:
    """Parse, generate, print."""
    from magi_video.files.atomic import replacing

    demo = parse(Demo, "magi demo", argv)
    show = SHOWS[demo.world]
    first_frame = SHIPPED / demo.world / "first_frame.png"
    if not first_frame.is_file():
        raise MagiError(f"{first_frame}: the package came without its model; install it again")
    out = demo.out or default_folder(demo.world)
    check_folder(out)
    interval = show.interval if demo.interval is None else demo.interval
    options = GenerateOptions(
        first_frame=first_frame, frames=demo.frames, interval=interval, actions=show.actions,
        sampling=Sampling(speed=demo.speed), num=demo.num, seed=demo.seed, precision=demo.precision,
        engine=demo.engine,
    )  # fmt: skip
    generate(demo.world, out, options, demo.json)
    with replacing(out / first_frame.name) as part:  # to begin another video from
        shutil.copyfile(first_frame, part)
