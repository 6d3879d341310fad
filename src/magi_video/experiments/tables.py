"""The tables of the reproduction's report, in Markdown."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Figures = dict[str, Any]
NAMES = {
    "floor": "other real clips (floor)",
    "codec": "through the codec",
    "shuffled": "frames shuffled",
    "copy_last": "last given frame held",
    "frozen": "first frame held",
    "noise": "noise",
    "ctf": "CTF",
    "mtf_equal_steps": "MTF, equal steps",
    "mtf_equal_time": "MTF, equal time",
}


def write(summary: Figures) -> str:
    """Every table that `summary` has figures for."""
    parts = []
    if "sensitivity" in summary:
        parts.append("## Can the score tell?\n\n" + sensitivity(summary["sensitivity"]))
    if "ctf_vs_mtf" in summary:
        parts.append("## CTF against MTF\n\n" + comparison(summary["ctf_vs_mtf"]["worlds"]))
    if "kv_cache" in summary:
        parts.append("## Time against frames\n\n" + time(summary["kv_cache"]))
    for world, figures in summary.get("starts", {}).items():
        parts.append(f"## Starts, {world}\n\n" + starts(figures))
    if "sampling_steps" in summary:
        parts.append("## Mask steps × denoise steps\n\n" + sampling_steps(summary["sampling_steps"]))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def sensitivity(worlds: Figures) -> str:
    """FVD of every damage in every world, and the excess over the floor."""
    names = list(next(iter(worlds.values()))["fvd"])
    head = ["against the reference set", *(f"{world}: FVD (over floor)" for world in worlds)]
    cells = [[f"{w['fvd'][name]:.0f} ({w['over_floor'][name]:+.0f})" for w in worlds.values()] for name in names]
    return table(head, [[NAMES.get(name, name), *row] for name, row in zip(names, cells, strict=True)])


def comparison(worlds: Figures) -> str:
    """One row a world and run kind, then the reductions."""
    rows = []
    for world, figures in worlds.items():
        for name, values in figures["fvd_per_seed"].items():
            mean, other = sum(values) / len(values), figures["other"][name]
            rows.append(
                [
                    world,
                    NAMES[name],
                    figures["steps"][name],
                    f"{mean:.1f} ± {figures['fvd_deviation'][name]:.1f}",
                    f"{mean - figures['floor']:.1f}" if figures["floor"] is not None else "",
                    " ".join(f"{value:.0f}" for value in values),
                    *(f"{other[key]:.{digits}f}" if key in other else "" for key, digits in SCORES),
                    f"{other['motion']['speed_distance']:.2f}",
                ]
            )
    head = ["world", "", "steps", "FVD", "over floor", "seeds", "FID", "PSNR", "LPIPS", "motion error"]
    reductions = [
        [
            world,
            *(
                f"{100 * figures[key]:.1f} %" if key in figures else ""
                for key in ("reduction", "reduction_equal_steps", "reduction_over_floor")
            ),
        ]
        for world, figures in worlds.items()
    ]
    second = ["CTF lower by", "equal time", "equal steps", "equal time, over the floor"]
    return table(head, rows) + "\n\n" + table(second, reductions)


SCORES = (("fid", 1), ("psnr", 2), ("lpips", 3))


def time(figures: Figures) -> str:
    """Seconds of every row for every number of frames, with and without the cache, and memory at the most frames."""
    head = ["row", "cache", *(f"{n} frames, s" for n in figures["frames"]), "R²", "past, MB", "peak, MB", "answer"]
    cells = []
    for name, one in figures["rows"].items():
        for way in ("cached", "uncached") if one["cached"] else ("cached",):
            end = "_uncached" if way == "uncached" else ""
            cells.append([
                f"`{name}`", "yes" if one["cached"] and not end else "no",
                *(f"{seconds:.2f}" for seconds in one[f"seconds_{way}"]), f"{one[f'r2{end}']:.4f}",
                *(f"{one[f'{kind}_bytes{end}'][-1] / 1e6:.1f}" for kind in ("past", "peak")),
                "" if end else one["verdict"],
            ])  # fmt: skip
    return table(head, cells)


def starts(figures: Figures) -> str:
    """What must be beaten and what each row makes of it, from each start; of several seeds the mean."""
    lines = []
    for given, start in figures["starts"].items():
        for name, scores in start["references"].items():
            position = scores.get("oracle", {}).get("position")
            lines.append([given, f"*{NAMES.get(name, name)}*", f"{scores['fvd']:.0f}", cell(position), ""])
        for name, row in start["rows"].items():
            if "refused" in row:
                lines.append([given, f"`{name}`", "", "", f"cannot begin so: {row['refused']}"])
                continue
            places = [one["position"] for one in row.get("oracle", []) if one.get("position") is not None]
            position = fmean(places) if places else None
            lines.append([given, f"`{name}`", f"{fmean(row['fvd']):.0f}", cell(position), row["verdict"]])
    return table(["given", "row", "FVD", "position", "answer"], lines)


def cell(value: float | None) -> str:
    """One digit behind the point; empty where there is no figure."""
    return "" if value is None else f"{value:.1f}"


def sampling_steps(figures: Figures) -> str:
    """One row a setting."""
    keys = ("mask_steps", "denoise_steps", "seconds_per_frame", "fvd", "psnr", "lpips")
    return table(
        ["mask steps", "denoise steps", "seconds a frame", "FVD", "PSNR", "LPIPS"],
        [[entry[key] for key in keys] for entry in figures["grid"]],
    )
