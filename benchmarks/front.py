"""The front of quality against time: evaluations of one model at different settings, each timed here, in turns.

    magi evaluate doom --data DIR --setting balanced … --out evaluations/balanced      # one for each setting
    python benchmarks/front.py doom evaluations/* --out docs/performance

Writes front.json, front.md and front.png: FVD with its interval, the paired scores and the seconds of one frame of one
video, decoding left out: the median over rounds in which every setting makes one video.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from magi_video import MagiVideoPipeline
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.fast.probes import PRECISIONS
from magi_video.sampling.sampling import Sampling
from rollouts import start_rollout

FRAMES = 24
STEPS = ("mask_steps", "denoise_steps", "sampler", "first_step", "refresh")


def read(folder: Path) -> dict[str, Any]:
    """What an evaluation says: settings and scores."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    made = metrics["generation"]
    return {
        "name": folder.name,
        **{key: made[key] for key in ("setting", *STEPS, "precision")},
        "fvd": metrics["fvd"],
        "fvd_interval": metrics["fvd_interval"],
        **{key: metrics["paired"][key] for key in ("psnr", "lpips")},
        "speed_ratio": metrics["motion"]["speed_ratio"],
        "clips": metrics["num_fake"],
    }


def seconds_per_frame(pipe: MagiVideoPipeline, entry: dict[str, Any]) -> list[float]:
    """Of one rollout, the first frame left out."""
    mask_steps, denoise_steps, sampler, first_step, refresh = (entry[key] for key in STEPS)
    sampling = Sampling(None, mask_steps, denoise_steps, sampler, refresh=refresh, first_step=first_step)
    rollout = start_rollout(pipe.transformer, sampling)
    seconds = []
    for _ in range(FRAMES + 1):
        began = time.perf_counter()
        rollout.predict()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def measure(model: str, entries: list[dict[str, Any]], rounds: int) -> None:
    """Add `milliseconds` to every entry."""
    pipes = {
        name: MagiVideoPipeline.from_pretrained(model, PRECISIONS[name]) for name in {e["precision"] for e in entries}
    }
    seconds: dict[str, list[float]] = {entry["name"]: [] for entry in entries}
    for _ in range(rounds):
        for entry in entries:
            seconds[entry["name"]] += seconds_per_frame(pipes[entry["precision"]], entry)
    for entry in entries:
        entry["milliseconds"] = round(1e3 * statistics.median(seconds[entry["name"]]), 2)


def table(entries: list[dict[str, Any]]) -> str:
    """In Markdown, slowest first."""
    head = "| setting | mask × denoise | sampler, first | refresh | ms a frame | FVD (95 %) | PSNR | LPIPS | speed |\n"
    lines = [head + "|---" * 9 + "|"]
    for e in entries:
        low, high = e["fvd_interval"]
        steps, sampler = f"{e['mask_steps']} × {e['denoise_steps']}", f"{e['sampler']} {e['first_step']}"
        fvd = f"{e['fvd']:.0f} ({low:.0f}…{high:.0f})"
        scores = f"{fvd} | {e['psnr']:.2f} | {e['lpips']:.3f} | {e['speed_ratio']:.2f}"
        lines.append(f"| {e['name']} | {steps} | {sampler} | {e['refresh']} | {e['milliseconds']:.1f} | {scores} |")
    return "\n".join(lines) + "\n"


def plot(entries: list[dict[str, Any]], path: Path) -> None:
    """FVD against milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for e in entries:
        low, high = e["fvd_interval"]
        named = e["name"] in ("exact", "balanced", "fast", "realtime")
        axes.errorbar(
            e["milliseconds"], e["fvd"], [[e["fvd"] - low], [high - e["fvd"]]], fmt="o" if named else "s",
            color="#0072b2" if named else "#999999", elinewidth=1, capsize=2,
        )  # fmt: skip
        axes.annotate(e["name"], (e["milliseconds"], e["fvd"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="milliseconds a frame (one video)", ylabel="FVD (95 % interval)", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_fast_float32()
    entries = [read(folder) for folder in arguments.evaluations]
    measure(arguments.model, entries, arguments.rounds)
    entries.sort(key=lambda entry: -entry["milliseconds"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = {"model": arguments.model, "threads": torch.get_num_threads(), "frames": FRAMES, "front": entries}
    (arguments.out / "front.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    (arguments.out / "front.md").write_text(table(entries), encoding="utf-8")
    plot(entries, arguments.out / "front.png")
    print(table(entries))


if __name__ == "__main__":
    main()
