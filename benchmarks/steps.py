"""Steps where they matter: one model of table 1's `balls`, sampled in many ways, oracle and all.

    magi reproduce table1 --worlds balls --seeds 0 --rows complete --out reproduction
    magi distill MODEL --data reproduction/balls/train --out few
    python benchmarks/steps.py MODEL few --world reproduction/balls --out steps.json            # oracle scores
    python benchmarks/steps.py MODEL few --world reproduction/balls --out steps.json --fvd --only exact few-8x2
    python benchmarks/steps.py MODEL few --world reproduction/balls --out steps.json --seconds  # in turns
    python benchmarks/steps.py MODEL --tokens 256 --world reproduction/balls --out steps256.json

Every candidate continues the same clips with the same seeds, so what differs from `exact` is told clip by clip: each
score's difference, with its 95 % interval over the clips (bootstrap). Figures that are there are not computed again.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video import MagiVideoPipeline
from magi_video.evaluation.paired import paired_errors
from magi_video.experiments.measure import Measures
from magi_video.experiments.runs import Workplace
from magi_video.experiments.worlds import CPU_WORLDS
from magi_video.files.atomic import write_json
from magi_video.sampling.sampling import Order, Sampling
from magi_video.training.display import Silent
from rollouts import start_rollout


@dataclass(frozen=True)
class Candidate:
    """How frames are made; `few`: by the model with the few-step head."""

    mask_steps: int
    denoise_steps: int
    refresh: int = 1
    few: bool = False
    order: Order = "random"
    last_denoise_steps: int | None = None
    last_temperature: float | None = None

    @property
    def sampling(self) -> Sampling:
        fields = {name: value for name, value in asdict(self).items() if name != "few"}
        return Sampling.of(None, **fields)


AT_64 = {
    "exact": Candidate(8, 20),
    "disa-8x20-5": Candidate(8, 20, last_denoise_steps=5),
    "cool-8x20": Candidate(8, 20, last_temperature=0.9),
    "sparse-8x20": Candidate(8, 20, order="sparse-to-dense"),
    "sparse-4x10": Candidate(4, 10, 4, order="sparse-to-dense"),
    "8x8": Candidate(8, 8),
    "4x10": Candidate(4, 10, 4),
    "balanced": Candidate(2, 10, 4),
    "fast": Candidate(2, 8, 4),
    "realtime": Candidate(1, 8, 4),
    "few-8x2": Candidate(8, 2, few=True),
    "few-8x1": Candidate(8, 1, few=True),
    "few-4x2": Candidate(4, 2, 4, few=True),
    "few-2x2": Candidate(2, 2, 4, few=True),
    "few-2x4": Candidate(2, 4, 4, few=True),
    "few-1x2": Candidate(1, 2, 4, few=True),
}
AT_256 = {
    "exact-256": Candidate(16, 20),
    "reuse-256": Candidate(16, 20, 4),
    "disa-16x20-5-256": Candidate(16, 20, last_denoise_steps=5),
    "cool-16x20-256": Candidate(16, 20, last_temperature=0.9),
    "sparse-16x20-256": Candidate(16, 20, order="sparse-to-dense"),
    "8x20-256": Candidate(8, 20),
    "sparse-8x20-256": Candidate(8, 20, order="sparse-to-dense"),
    "sparse-8x20-5-256": Candidate(8, 20, order="sparse-to-dense", last_denoise_steps=5),
    "4x10-refresh4-256": Candidate(4, 10, 4),
    "4x10-refresh2-256": Candidate(4, 10, 2),
    "4x10-256": Candidate(4, 10),
    "sparse-4x10-256": Candidate(4, 10, order="sparse-to-dense"),
    "sparse-4x10-reuse-256": Candidate(4, 10, 4, order="sparse-to-dense"),
    "4x8-refresh2-256": Candidate(4, 8, 2),
    "2x8-256": Candidate(2, 8),
    "realtime-256": Candidate(2, 8, 4),
    "1x8-256": Candidate(1, 8, 4),
}
CANDIDATES = AT_64 | AT_256
BY_TOKENS = {64: AT_64, 256: AT_256}
"""Candidates of a model of so many tokens a frame; the first is its `exact`."""
SCORES = ("position", "area", "speed", "number")
"""Of the oracle; lower is better but for "number"."""
RESAMPLES = 4000
TIMED_FRAMES = 12


def difference(values_N: list[float], exact_N: list[float]) -> list[float]:
    """Mean difference of the clips' scores, and its 95 % interval."""
    apart_N = np.array(values_N, dtype=float) - np.array(exact_N, dtype=float)
    apart_N = apart_N[~np.isnan(apart_N)]
    picked_RN = np.random.default_rng(0).integers(0, len(apart_N), (RESAMPLES, len(apart_N)))
    low, high = np.percentile(apart_N[picked_RN].mean(axis=1), (2.5, 97.5))
    return [round(float(one), 4) for one in (apart_N.mean(), low, high)]


def score(m: Measures, model: Path, name: str, fvd: bool) -> dict[str, Any]:
    """A candidate's figures."""
    one, given = CANDIDATES[name], m.world.given
    made = m.samples(name, model, sampling=one.sampling)
    oracle = m.oracle(name, lambda: made)["oracle"]
    errors = [paired_errors(real[given:], fake[given:], None) for real, fake in zip(m.context, made, strict=True)]
    figures: dict[str, Any] = {**asdict(one), **{key: oracle[key] for key in SCORES}}
    figures |= {"apart": oracle["apart"], "psnr": round(float(np.mean([error["psnr"] for error in errors])), 3)}
    figures["per_clip"] = {key: oracle["per_clip"][key] for key in SCORES}
    if fvd:
        made_scores = m.score(name, lambda: made)
        figures |= {key: made_scores[key] for key in ("fvd", "fvd_interval")}
    return figures


@torch.no_grad()
def milliseconds(models: dict[bool, Path], names: list[str], rounds: int) -> dict[str, float]:
    """Processor milliseconds of a frame of one video without decoding: medians over rounds in which all take turns."""
    wanted = {CANDIDATES[name].few for name in names}
    pipes = {few: MagiVideoPipeline.from_pretrained(models[few]) for few in wanted}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            rollout = start_rollout(pipes[CANDIDATES[name].few].transformer, CANDIDATES[name].sampling)
            rollout.predict()
            for _ in range(TIMED_FRAMES):
                began = time.process_time()
                rollout.predict()
                seconds[name].append(time.process_time() - began)
    return {name: round(1e3 * statistics.median(values), 2) for name, values in seconds.items()}


def table(book: dict[str, Any]) -> str:
    """In Markdown, slowest first."""
    head = "| | mask × denoise | ms | FVD (95 %) | " + " | ".join((*SCORES, "apart", "PSNR")) + " |\n"
    lines = [head + "|---" * (6 + len(SCORES)) + "|"]
    for name, one in sorted(book.items(), key=lambda pair: -pair[1].get("cpu_milliseconds", 0)):
        if "position" not in one:
            continue
        low, high = one.get("fvd_interval", (0, 0))
        fvd = f"{one['fvd']:.0f} ({low:.0f}…{high:.0f})" if "fvd" in one else ""
        cells = []
        for key in SCORES:
            apart = one.get("against_exact", {}).get(key)
            cells.append(f"{one[key]:.3f}" + (f" ({apart[1]:+.3f}…{apart[2]:+.3f})" if apart else ""))
        steps = f"{one['mask_steps']} × {one['denoise_steps']}"
        lines.append(
            f"| {name} | {steps} | {one.get('cpu_milliseconds', '')} | {fvd} | {' | '.join(cells)} | "
            f"{one['apart']:.3f} | {one['psnr']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("few", type=Path, nargs="?", help="the same model with a few-step head")
    parser.add_argument("--tokens", type=int, choices=BY_TOKENS, default=64, help="of a frame: which candidates")
    parser.add_argument("--world", type=Path, required=True, help="folder of `balls`, by magi reproduce table1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CANDIDATES)
    parser.add_argument("--fvd", action="store_true")
    parser.add_argument("--seconds", action="store_true", help="time the candidates in turns, nothing else")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {False: arguments.model, True: arguments.few or arguments.model}
    names = arguments.only or list(BY_TOKENS[arguments.tokens])
    best = next(iter(BY_TOKENS[arguments.tokens]))
    book = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    if arguments.seconds:
        for name, value in milliseconds(models, names, arguments.rounds).items():
            book.setdefault(name, {})["cpu_milliseconds"] = value
            write_json(arguments.out, book)
    else:
        world = next(one for one in CPU_WORLDS if one.name == "balls")
        measures = Measures(Workplace(world, arguments.world, None, Silent()))
        for name in names:
            figures = score(measures, models[CANDIDATES[name].few], name, arguments.fvd)
            if name != best and best in book:
                exact = book[best]["per_clip"]
                figures["against_exact"] = {key: difference(figures["per_clip"][key], exact[key]) for key in SCORES}
            book[name] = book.get(name, {}) | figures
            write_json(arguments.out, book)
            print(name, {key: value for key, value in book[name].items() if key != "per_clip"}, flush=True)
    print(table(book))


if __name__ == "__main__":
    main()
