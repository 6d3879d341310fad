"""`magi plan PRESET-or-FILE`: any field of the preset is a flag, as for `magi train`."""

import json
from dataclasses import dataclass

import tyro

from magi_video.bench.tables import plan_tables, verdict, ways_table
from magi_video.cli.output import print_columns, print_list, print_tables, print_title
from magi_video.cli.parsing import Videos
from magi_video.cli.recipe import RecipeOptions, parse_recipe
from magi_video.presets import PRESETS

HELP = f"""Say what a training run will need: operations, memory, disk, days. Nothing is trained, and nothing fetched.

usage: magi plan PRESET-or-FILE --devices N [--hardware NAME] [--data DIR] [--json] [any field of the preset]

First the recipe as given, with its --accumulate, --sharding and --gradient-checkpointing; then other ways to spread it.

PRESET is one of {", ".join(PRESETS)}, or a JSON file of fields. Operations and parameters are exact; memory is an upper
bound; days stand on the share of the peak that is assumed (--mfu)."""


@dataclass(frozen=True, kw_only=True)
class Command(RecipeOptions):
    """Options of `magi plan`."""

    devices: int
    """GPUs (or CPUs), one process on each."""
    hardware: str | None = None
    """a100, a100-40gb, h100, h200, b200, l40s, rtx4090, mi300x; cpu: this machine, whose peak is measured now. h100 if
    no peak is given either."""
    device_memory: float | None = None
    """GiB of each device; the hardware's if not said."""
    peak_tflops: float | None = None
    """bfloat16 TFLOP/s of each device, dense; the hardware's if not said."""
    peak_float32: float | None = None
    """float32 TFLOP/s; the hardware's, or a fifteenth of the bfloat16 peak, if not said."""
    mfu: float = 0.4
    """Share of these peaks that training reaches, an assumption: the plan's seconds at --mfu 1 over those of magi bench
    would be the measured one."""
    data: Videos | None = None
    """Folder of the data set, to count its videos and look through 32 of them."""
    json: bool = False
    """Print JSON."""


def parse(argv: list[str]) -> Command:
    """The command line; the first argument is the preset, whose fields become the defaults."""
    return parse_recipe(Command, "plan", HELP, argv, "k600", devices=tyro.MISSING)


def main(argv: list[str]) -> None:
    """Parse, plan, print."""
    command = parse(argv)
    preset = command.preset()
    from magi_video.bench.hardware import find_hardware
    from magi_video.bench.plan import make_plan

    name = command.hardware or (None if command.peak_tflops else "h100")
    hardware = find_hardware(name, command.peak_tflops, command.peak_float32, command.device_memory)
    plan = make_plan(argv[0], preset, command.devices, hardware, command.mfu, command.data)
    if command.json:
        print(json.dumps(plan.to_dict()))
    else:
        print_title(f"as given: {verdict(plan)}")
        print_tables(plan_tables(plan))
        print_columns("ways to spread it, each device", *ways_table(plan))
        print_list("assumed", plan.assumptions)
