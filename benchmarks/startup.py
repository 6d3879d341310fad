"""What a command costs before it does anything, as a multiple of `import torch`: `python benchmarks/startup.py`.

CPU seconds (user and system) of whole processes, in turns, one thread each; medians. `--before SRC` measures the `src`
folder of another revision in the same turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
CASES = {
    "import magi_video.pipeline": ["-c", "import magi_video.pipeline.pipeline"],
    "magi demo --frames 2": ["-m", "magi_video", "demo", "--frames", "2", "--out"],
    "magi generate doom --frames 2": ["-m", "magi_video", "generate", "doom", "--frames", "2", "--out"],
    "magi info doom": ["-m", "magi_video", "info", "doom"],
}


def cpu_seconds(arguments: list[str], source: Path) -> float:
    """CPU seconds of an interpreter with these arguments, on a source folder."""
    with tempfile.TemporaryDirectory() as out:
        given = [*arguments, f"{out}/made"] if arguments[-1] == "--out" else arguments
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=out
        )
        _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    sources = {"now": SRC} | ({} if options.before is None else {"before": options.before.resolve()})
    runs = {("import torch", "now"): (["-c", "import torch"], SRC)}
    runs |= {(name, when): (case, source) for name, case in CASES.items() for when, source in sources.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(options.rounds):
        for key, run in runs.items():
            seconds[key].append(cpu_seconds(*run))
    unit = statistics.median(seconds["import torch", "now"])
    for (name, when), found in seconds.items():
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(
            f"{name} ({when}): {statistics.median(found):.2f} CPU s ({spread}), {statistics.median(found) / unit:.2f} ×"
        )


if __name__ == "__main__":
    main()
