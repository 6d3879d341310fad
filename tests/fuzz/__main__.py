"""A fuzzing campaign: `python -m tests.fuzz --inputs 20000 [--readers video image] [--seed 0]`.

Each reader works in a process of its own with limited memory, so that a crash or a hang is a find too. A find is told
with its seed, by which `--readers NAME --inputs 1 --seed SEED` repeats it; the last line is a JSON object of counts.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from magi_video.errors import MagiError

SECONDS = 60  # for one input
MEMORY = 2**33  # bytes of address space of a reader's process; the libraries alone take 2 GiB of it
MEMORY_GROWTH = 2**30  # bytes that an input may add to the peak of a process


def examine(name: str, seed: int, inputs: int) -> None:
    """Feed a reader; prints a line an input: its seed and what came of it."""
    import torch

    from .readers import damage, make_corpus, mend

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as root:
        reader = make_corpus(Path(root), [name])[name]
        folder = Path(root) / name
        reader.read(folder, reader.files[0])  # whole files are read
        for number in range(seed, seed + inputs):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            damaged = damage(folder, reader, number)
            print(f"{number} begun", flush=True)
            try:
                reader.read(folder, damaged)
                outcome = "read"
            except MagiError as error:
                outcome = (
                    "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"FIND long: {error!r:.300}"
                )
            except Exception as error:
                outcome = f"FIND {damaged}: {type(error).__name__}: {str(error)[:300]!r}"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            if grown > MEMORY_GROWTH:
                outcome = f"FIND {damaged}: {grown >> 20} MiB more memory"
            print(f"{number} {outcome}", flush=True)
            mend(folder, damaged)


def campaign(name: str, seed: int, inputs: int) -> Counter[str]:
    """The outcomes of a reader; its process is started again after a crash."""
    outcomes: Counter[str] = Counter()
    number, end = seed, seed + inputs
    while number < end:
        command = [sys.executable, "-m", "tests.fuzz", "--examine", name, str(number), str(end - number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        errors: list[str] = []
        listener = threading.Thread(target=lambda pipe=process.stderr, to=errors: to.extend(pipe))
        listener.start()
        assert process.stdout is not None
        begun = False
        while True:
            timer = threading.Timer(SECONDS * 5 if not begun else SECONDS, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                break
            at, _, outcome = line.rstrip("\n").partition(" ")
            number = int(at)
            begun = outcome == "begun"
            if not begun:
                outcomes[outcome.split()[0]] += 1
                number += 1
                if outcome.startswith("FIND"):
                    print(f"{name} --seed {at}: {outcome}", flush=True)
        code = process.wait()
        listener.join()
        if number < end:
            told = errors[-1].strip() if errors else ""
            print(f"{name} --seed {number}: FIND the process ended ({code}) {told[:300]}", flush=True)
            outcomes["FIND"] += 1
            if not begun:
                break  # it does not even start
            number += 1
    return outcomes


def main() -> None:
    """Parse, examine, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="over all readers")
    parser.add_argument("--readers", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examine", nargs=3)
    arguments = parser.parse_args()
    if arguments.examine:
        examine(arguments.examine[0], *map(int, arguments.examine[1:]))
        return
    from .readers import MAKERS, SHARES

    names = arguments.readers or list(MAKERS)
    shares = {name: SHARES.get(name, 1) for name in names}
    counts = {}
    for name in names:
        inputs = max(1, round(arguments.inputs * shares[name] / sum(shares.values())))
        counts[name] = dict(campaign(name, arguments.seed, inputs))
        print(f"{name}: {inputs} inputs, {counts[name]}", flush=True)
    print(json.dumps(counts))
    sys.exit(any("FIND" in outcome for outcome in counts.values()))


if __name__ == "__main__":
    main()
