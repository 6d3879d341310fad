"""`magi plan PRESET-or-FILE`: any field of the preset is a flag, as for `magi train`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from magi_video.cli.recipe import RecipeOptions, parse_recipe
from magi_video.presets import PRESETS

if TYPE_CHECKING:
    from magi_video.bench.plan import Plan, Way

HELP = f"""Say what a training run will need: operations, memory, disk, days. Nothing is trained, and nothing fetched.

usage: magi plan PRESET-or-FILE --devices N [--hardware NAME] [--data DIR] [--json] [any field of the preset]

First the recipe as given, with its --accumulate, --sharding and --gradient-checkpointing; then other ways to spread it.

PRESET is one of {", ".join(PRESETS)}, or a JSON file of fields. Operations and parameters are exact; memory is an upper
bound; days stand on the share of the peak that is assumed (--mfu)."""
PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "average": "averaged weights",
    "casts": "bfloat16 copies",
    "gathered": "gathered blocks",
    "codec": "codec",
    "activations": "activations",
    "temporary": "temporary",
}


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
    data: Path | None = None
    """Folder of the data set, to count its videos and look through 32 of them."""
    json: Annotated[bool, arg(name="json")] = False
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
        print_result(plan)


def print_result(plan: "Plan") -> None:
    """Print the figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]as given: {verdict(plan)}[/bold]", highlight=False)
    for title, rows in {f"{plan.preset} on {plan.devices} × {plan.hardware.name}": about(plan), **best(plan)}.items():
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        for name, value in rows.items():
            table.add_row(name, value)
        console.print(table)
    ways = Table(title="ways to spread it, each device", title_justify="left", title_style="bold", box=None)
    for column in ("--sharding", "--gradient-checkpointing", "clips", "--accumulate", "GiB", "s/step", "days"):
        ways.add_column(column, justify="left" if column.startswith("--s") else "right")
    for way in plan.ways:
        ways.add_row(
            way.sharding, "yes" if way.gradient_checkpointing else "no", str(way.micro_batch), str(way.accumulate),
            f"{way.memory.total / 2**30:.1f}{'' if way.fits else ': too much'}", short(way.seconds_per_step),
            short(way.days),
        )  # fmt: skip
    console.print(ways)
    console.print("[bold]assumed[/bold]")
    for line in plan.assumptions:
        console.print(f"- {line}", highlight=False)


def about(plan: "Plan") -> dict[str, str]:
    """The work, whatever the devices."""
    flops, latents = plan.flops, plan.latents
    parts = {
        "spatial": flops.spatial_linear + flops.spatial_attention,
        "temporal": flops.temporal_linear + flops.temporal_attention,
        "head": flops.head,
        "embedding": flops.embedding,
    }
    rows = {
        "parameters": ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in plan.parameters.items()),
        "a clip": f"{plan.clip_frames} frames → {plan.latent_frames} latent frames of {plan.tokens} tokens; "
        f"{plan.forcing} reads {plan.sequence_frames}",
        "a step": f"{plan.batch_size} clips, {flops.total / 1e12:,.4g} TFLOP: "
        + ", ".join(f"{part} {count / flops.total:.1%}" for part, count in parts.items()),
        "all steps": f"{plan.steps:,}, {flops.total * plan.steps / 1e18:,.4g} EFLOP",
    }
    if plan.encoding_flops != 0:
        size = "unknown" if plan.encoding_flops is None else f"{plan.encoding_flops / 1e12:,.4g} TFLOP"
        rows["encoding"] = f"{size} a step, besides"
    size = "unknown size" if latents.bytes is None else f"{latents.bytes / 1e9:,.3g} GB"
    if latents.online and latents.bytes:
        rows["latents"] = f"none cached; one clip of every video would be {size} ({latents.source})"
    elif not latents.online:
        once = "" if latents.encoding_flops is None else f", {latents.encoding_flops / 1e15:,.3g} PFLOP to encode"
        rows["latent cache"] = f"{size}{once} ({latents.source})"
    return rows


def verdict(plan: "Plan") -> str:
    """Whether the recipe fits as it stands, in a line."""
    way, room = plan.given, plan.hardware.usable * (plan.hardware.memory_gib or 0)
    clips = f"{way.micro_batch} clip{'s' if way.micro_batch > 1 else ''} at a time"
    taken = f"{clips}, {short(way.memory.total / 2**30)} of the {short(room)} GiB that a device can give"
    return f"fits: {taken}" if way.fits else f"does not fit: {taken}"


def best(plan: "Plan") -> dict[str, dict[str, str]]:
    """What to do, and what it takes of a device."""
    way = plan.best
    if way is None:
        least = min(plan.ways, key=lambda way: way.memory.total)
        return {"no way fits": memory(plan, least)}
    flags = f"--sharding {way.sharding} --accumulate {way.accumulate}"
    flags += " --gradient-checkpointing" if way.gradient_checkpointing else ""
    rows = {
        "settings": flags,
        "a step": f"{short(way.seconds_per_step)} s: {short(plan.batch_size / way.seconds_per_step)} clips/s, "
        f"{way.micro_batch} clip(s) at a time on each device",
        "in all": f"{duration(way.days)}, {short(way.days * 24 * plan.devices)} device-hours",
    }
    if plan.devices > 1:
        rows["traffic"] = f"{plan.traffic_bytes / 1e9:.3g} GB of gradients a step and device without sharding"
    return {"best": rows | memory(plan, way)}


def memory(plan: "Plan", way: "Way") -> dict[str, str]:
    """Memory of a device, by part."""
    parts = {label: getattr(way.memory, part) / 2**30 for part, label in PARTS.items()}
    listed = ", ".join(f"{label} {value:.2f}" for label, value in parts.items() if value >= 0.005)
    total = f"{way.memory.total / 2**30:.1f} of {plan.hardware.memory_gib:.0f} GiB"
    return {"memory": f"{total} at {way.micro_batch} clip(s): {listed}"}


def duration(days: float) -> str:
    """In days, or hours if there are few."""
    return f"{short(days)} days" if days >= 2 else f"{short(days * 24)} hours"


def short(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
