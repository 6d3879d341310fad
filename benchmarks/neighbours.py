"""How a model's threads wait for one another, alone and beside busy neighbours: milliseconds of a frame.

    python benchmarks/neighbours.py [doom] [--neighbours 0 1] [--threads 1 2] [--frames 60] [--rounds 3] [--json FILE]

For each number of neighbours (processes that compute without end, one thread each): PyTorch with so many threads, which
wait actively (OpenMP's default) or passively (as every `magi` command sets it before PyTorch is imported). Each case is
a process of its own; cases take turns. Needs a machine on which nothing else runs: compare cases within one call.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from magi_video.fast.threads import SPIN, WAITING
from magi_video.files.atomic import write_json

WARM_UP = 8
"""Frames that are not counted."""
BUSY = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: torch.mm(a, a)"


def frame_milliseconds(model: str, threads: int, frames: int) -> list[float]:
    """Milliseconds of each frame of a video at `realtime`, by PyTorch."""
    import time

    import torch

    from magi_video import MagiVideoPipeline
    from magi_video.fast.kernel_choice import use_fast_float32

    torch.set_num_threads(threads)
    use_fast_float32()
    pipe, found = MagiVideoPipeline.from_pretrained(model), list[float]()
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in pipe.stream(num_frames=WARM_UP + frames, sampling="realtime", generator=generator):
        now = time.perf_counter()
        found.append(1000 * (now - began))
        began = now
    return found[WARM_UP:]


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """While entered, so many processes compute without end."""
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(process.kill)
        yield


def in_own_process(model: str, threads: int, frames: int, passively: bool) -> list[float]:
    """`frame_milliseconds` in a process that waits in that way: OpenMP reads it once."""
    environment = {name: value for name, value in os.environ.items() if name not in (*SPIN, "OMP_NUM_THREADS")}
    child = [sys.executable, __file__, model, "--child", "--threads", str(threads), "--frames", str(frames)]
    done = subprocess.run(
        child, env=environment | (WAITING if passively else {}), stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="doom")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(frame_milliseconds(options.model, options.threads[0], options.frames)))
        return
    cases = [(count, passively, threads) for threads in options.threads for passively in (False, True)
             for count in options.neighbours]  # fmt: skip
    medians: dict[tuple[int, bool, int], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            count, passively, threads = case
            with neighbours(count):
                found = in_own_process(options.model, threads, options.frames, passively)
            medians[case].append(statistics.median(found))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {options.frames} frames, each round")
    rows = []
    for (count, passively, threads), found in medians.items():
        waiting = "passively" if passively else "actively"
        figures = ", ".join(f"{value:.1f}" for value in found)
        print(f"{threads} threads waiting {waiting} beside {count} neighbours: {figures} ms a frame")
        rows.append({"neighbours": count, "waiting": waiting, "threads": threads, "milliseconds_per_frame": found})
    if options.json:
        write_json(options.json, {"model": options.model, "cores": os.cpu_count(), "rows": rows})


if __name__ == "__main__":
    main()
