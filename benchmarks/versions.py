"""Seconds per generated frame and per training clip, this version against an older one of the project, in one run.

    python benchmarks/versions.py --old REVISION [--model doom] [--setting exact] [--precision float32] [--json FILE]

The older revision is checked out beside this one (git worktree) and `magi bench` of the two runs in turns, each in a
process of its own: the same weights, steps, precision and threads. Every second round begins with the other version.

Seconds are processor time, of all threads together: set OMP_NUM_THREADS=1. Where other programs want the same cores,
elapsed time is several times as long and says how the system shares the cores; `--clock wall` measures it, for GPUs and
for machines that do nothing else. The range of the rounds' ratios is printed too: a difference that it covers is noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = "import sys; from magi_video.cli import main; main(sys.argv[1:])"
BENCH = {"cpu": f"import time; time.perf_counter = time.process_time; {RUN}", "wall": RUN}
"""How `magi bench`, which reads `time.perf_counter`, is run by each clock; the same for revisions of any age."""


def bench(
    root: Path, model: str, setting: str, precision: str, frames: int, train: bool, clock: str
) -> dict[str, float]:
    """Seconds a frame, and a training clip if asked for, of the version in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "bench.json"
        command = [sys.executable, "-c", BENCH[clock], "bench", model, "--setting", setting, "--precision", precision]
        parts = ["generate", "train"] if train else ["generate"]
        options = ["--frames", str(frames), "--json", str(report), "--train-steps", "3", "--parts", *parts]
        environment = os.environ | {"PYTHONPATH": str(root / "src")}
        subprocess.run([*command, *options], env=environment, cwd=root, check=True, capture_output=True)
        content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    seconds = {"frame": statistics.median(content["seconds_per_frame"])}
    if train:
        seconds["clip"] = 1 / content["train_clips_per_second"]
    return seconds


def in_turns(old: str, rounds: int, **options: Any) -> dict[str, Any]:
    """Medians of both versions, measured alternately, and their ratios."""
    seconds: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--detach", checkout, old], cwd=ROOT, check=True, capture_output=True)
        try:
            versions = [("old", checkout), ("new", ROOT)]
            for number in range(rounds):
                for name, root in versions if number % 2 == 0 else reversed(versions):
                    seconds[name].append(bench(root, **options))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
    figures: dict[str, Any] = {"old_revision": old, "rounds": rounds, **options}
    for what in seconds["new"][0]:
        median = {name: statistics.median(row[what] for row in rows) for name, rows in seconds.items()}
        figures |= {f"{name}_seconds_per_{what}": round(value, 5) for name, value in median.items()}
        figures[f"{what}_new_over_old"] = round(median["new"] / median["old"], 3)
        ratios = [new[what] / old[what] for old, new in zip(seconds["old"], seconds["new"], strict=True)]
        figures[f"{what}_new_over_old_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="revision to compare with")
    parser.add_argument("--model", default="doom", help="as of magi bench")
    parser.add_argument("--setting", default="exact", help="speed setting")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=12, help="timed in each round")
    parser.add_argument("--clock", choices=tuple(BENCH), default="cpu", help="processor time, or elapsed time")
    parser.add_argument("--train", action="store_true", help="measure training steps too")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    figures = in_turns(
        given.old, given.rounds, model=given.model, setting=given.setting, precision=given.precision,
        frames=given.frames, train=given.train, clock=given.clock,
    )  # fmt: skip
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
