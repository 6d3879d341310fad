"""Figures of a benchmark and of a plan as tables for people: title → name → value. Does not import PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magi_video.errors import counted

if TYPE_CHECKING:
    from magi_video.bench.generation import Generation
    from magi_video.bench.plan import Plan, Way
    from magi_video.bench.report import Report
    from magi_video.bench.training import Training

Tables = dict[str, dict[str, str]]
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
"""Part of `Memory` → how it is called."""


def report_tables(report: Report) -> Tables:
    """The tables to print, one a part: title → name → value."""
    tables = {f"{report.subject} ({report.kind})": about_machine(report)}
    if report.generation:
        tables["generation"] = about_generation(report.generation)
    if report.uncached:
        lines = {"with the cache": report.uncached.line_cached, "without": report.uncached.line_uncached}
        tables[f"straight line through the first {report.uncached.frames} frames"] = {
            name: f"{line.seconds_per_frame:.4g} s a frame, R² {line.r2:.4f}" for name, line in lines.items()
        }
    if report.training:
        tables[f"training, {report.training.forcing} teacher forcing"] = about_training(report.training)
    for name, profile in report.profile.items():
        tables[f"where the time of {name} goes"] = {
            by: ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
            for by, shares in (("by part", profile.by_part), ("by purpose", profile.by_purpose))
        }
    return tables


def about_machine(report: Report) -> dict[str, str]:
    """Machine and model."""
    machine = report.machine
    cpu = f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads"
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in report.matmul_peak_gflops.items())
    return {
        "machine": f"{cpu if machine.device == 'cpu' else machine.device}, {machine.capability}",
        "matmul peak, 2048³": f"{peaks} GFLOP/s",
        "parameters": ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in report.parameters.items()),
        "peak memory": f"{report.peak_memory_bytes / 2**30:.2f} GiB",
    }


def about_generation(one: Generation) -> dict[str, str]:
    """Figures of generation."""
    how = one.sampling
    begins = "" if how.first_step is None else f" from {how.first_step}"
    rows = {
        "a frame": f"{how.speed}: {how.mask_steps} mask × {how.denoise_steps} denoise steps, {how.sampler}{begins}, "
        f"batch {one.batch}, {one.precision}, {counted(one.threads, 'thread')}, engine {one.engine}",
        **({"engine": one.engine_why.partition(": ")[2] or one.engine_why} if one.engine_why else {}),
        "seconds a frame": f"{one.median_seconds:.4g} (median of {one.frames}; warm-up: {one.warm_up})",
        "frames/s": f"{one.frames_per_second:.4g}",
        "first over last frames": f"{one.first_over_last:.2f}",
        "FLOPs a frame": f"{amount(one.flops_total)}, executed {amount(one.flops_executed)}",
        "share of the peak": f"{one.peak_share:.1%}",
    }
    if one.decode_seconds is not None and one.encode_seconds is not None:
        rows["decoder, JPEG"] = f"{one.decode_seconds:.3g} s, {one.encode_seconds:.2g} s a frame"
        rows["end-to-end frames/s"] = f"{one.end_to_end_frames_per_second:.4g}"
    return rows


def about_training(one: Training) -> dict[str, str]:
    """Figures of training."""
    return {
        "a step": f"{counted(one.batch, 'clip')} of {counted(one.clip_frames, 'frame')} "
        f"(the recipe's {one.recipe_batch}), {one.precision}, {counted(one.threads, 'thread')}",
        "seconds a step": f"{one.median_seconds:.4g} (median of {len(one.seconds_per_step)}; warm-up: {one.warm_up})",
        "clips/s": f"{one.clips_per_second:.4g}",
        "FLOPs a step": f"{amount(one.flops_total)}, executed {amount(one.flops_executed)}",
        "share of the peak": f"{one.peak_share:.1%}",
    }


def amount(flops: int | None) -> str:
    """Operations in a unit that fits."""
    if flops is None:
        return "not countable"
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e11 else f"{flops / 1e9:.3g} GFLOP"


def plan_tables(plan: Plan) -> Tables:
    """The work of a plan, and the best way to spread it."""
    return {f"{plan.preset} on {plan.devices} × {plan.hardware.name}": about_work(plan), **best_way(plan)}


def ways_table(plan: Plan) -> list[tuple[str, ...]]:
    """The head of the table of ways to spread a plan's training, and its rows."""
    head = ("--sharding", "--gradient-checkpointing", "clips", "--accumulate", "GiB", "s/step", "days")
    rows = [
        (
            way.sharding, "yes" if way.gradient_checkpointing else "no", str(way.micro_batch), str(way.accumulate),
            f"{way.memory.total / 2**30:.1f}{'' if way.fits else ': too much'}", short(way.seconds_per_step),
            short(way.days),
        )
        for way in plan.ways
    ]  # fmt: skip
    return [head, *rows]


def about_work(plan: Plan) -> dict[str, str]:
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


def verdict(plan: Plan) -> str:
    """Whether the recipe fits as it stands, in a line."""
    way, room = plan.given, plan.hardware.usable * (plan.hardware.memory_gib or 0)
    clips = f"{way.micro_batch} clip{'s' if way.micro_batch > 1 else ''} at a time"
    taken = f"{clips}, {short(way.memory.total / 2**30)} of the {short(room)} GiB that a device can give"
    return f"fits: {taken}" if way.fits else f"does not fit: {taken}"


def best_way(plan: Plan) -> Tables:
    """What to do, and what it takes of a device."""
    way = plan.best
    if way is None:
        least = min(plan.ways, key=lambda way: way.memory.total)
        return {"no way fits": about_memory(plan, least)}
    flags = f"--sharding {way.sharding} --accumulate {way.accumulate}"
    flags += " --gradient-checkpointing" if way.gradient_checkpointing else ""
    rows = {
        "settings": flags,
        "a step": f"{short(way.seconds_per_step)} s: {short(plan.batch_size / way.seconds_per_step)} clips/s, "
        f"{counted(way.micro_batch, 'clip')} at a time on each device",
        "in all": f"{duration(way.days)}, {short(way.days * 24 * plan.devices)} device-hours",
    }
    if plan.devices > 1:
        rows["traffic"] = f"{plan.traffic_bytes / 1e9:.3g} GB of gradients a step and device without sharding"
    return {"best": rows | about_memory(plan, way)}


def about_memory(plan: Plan, way: Way) -> dict[str, str]:
    """Memory of a device, by part."""
    parts = {label: getattr(way.memory, part) / 2**30 for part, label in PARTS.items()}
    listed = ", ".join(f"{label} {value:.2f}" for label, value in parts.items() if value >= 0.005)
    total = f"{way.memory.total / 2**30:.1f} of {plan.hardware.memory_gib:.0f} GiB"
    return {"memory": f"{total} at {counted(way.micro_batch, 'clip')}: {listed}"}


def duration(days: float) -> str:
    """In days, or hours if there are few."""
    return f"{short(days)} days" if days >= 2 else f"{short(days * 24)} hours"


def short(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
