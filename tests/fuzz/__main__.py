"""A fuzzing campaign: `python -m tests.fuzz --inputs 20000 [--readers video image | cheap | dear] [--seed 0]`.

Each reader works in a process of its own with limited memory, so that a crash or a hang is a find too. A find is told
with its seed, by which `--readers NAME --inputs 1 --seed SEED` repeats it; the last line is a JSON object of counts.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from magi_video.errors import MagiError

SECONDS = 60  # for one input
MEMORY = 2**33  # bytes of address space of a reader's process; the libraries alone take 2 GiB of it
INPUTS_BETWEEN_COUNTS = 500
MEMORY_GROWTH = 2**30  # bytes that an input may add to the peak of a process


def examine(name: str, seed: int, inputs: int, place: str) -> None:
    """Feed a reader. Prints finds, and now and then how many inputs came to what; `place` says which input is at hand.

    An input that takes too long ends the process by a signal, which stops a library in C, too.
    """
    import torch

    from tests.fuzz.corpus import damage, mend
    from tests.fuzz.readers import make_corpus

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root, Path(place).open("r+b", buffering=0) as at_hand:
        reader = make_corpus(Path(root), [name])[name]
        folder = Path(root) / name
        reader.read(folder, reader.files[0])  # whole files are read
        for number in range(seed, seed + inputs):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            damaged = damage(folder, reader, number)
            at_hand.seek(0)
            at_hand.write(number.to_bytes(8, "little"))
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                reader.read(folder, damaged)
                outcome = "read"
            except MagiError as error:
                outcome = (
                    "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"FIND long: {error!r:.300}"
                )
            except BaseException as error:
                outcome = f"FIND {damaged}: {type(error).__name__}: {str(error)[:300]!r}"
            signal.setitimer(signal.ITIMER_REAL, 0)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            if grown > MEMORY_GROWTH:
                outcome = f"FIND {damaged}: {grown >> 20} MiB more memory"
            counts[outcome.split()[0]] += 1
            if outcome.startswith("FIND"):
                print(f"{name} --seed {number}: {outcome}", flush=True)
            mend(folder, damaged)
            if number % INPUTS_BETWEEN_COUNTS == 0 or number == seed + inputs - 1:
                print(json.dumps(counts), flush=True)
                counts.clear()


def campaign(name: str, seed: int, inputs: int) -> Counter[str]:
    """The outcomes of a reader; its process is started again after a crash."""
    outcomes: Counter[str] = Counter()
    number, end = seed, seed + inputs
    with tempfile.NamedTemporaryFile() as at_hand:
        while number < end:
            at_hand.truncate(0)
            command = [sys.executable, "-m", "tests.fuzz", "--examine", name, str(number), str(end - number)]
            process = subprocess.Popen(
                [*command, at_hand.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            errors: list[str] = []
            listener = threading.Thread(target=lambda pipe=process.stderr, to=errors: to.extend(pipe))
            listener.start()
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    outcomes.update(json.loads(line))
                else:
                    print(line, end="", flush=True)
            code = process.wait()
            listener.join()
            if code == 0:
                break
            at_hand.seek(0)
            content = at_hand.read(8)
            number = int.from_bytes(content, "little")
            told = errors[-1].strip() if errors else ""
            print(f"{name} --seed {number}: FIND the process ended ({code}) {told[:300]}", flush=True)
            outcomes["FIND"] += 1
            if not content:
                break  # it does not even start
            number += 1
    return outcomes


def main() -> None:
    """Parse, examine, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="over all readers")
    parser.add_argument("--readers", nargs="*", help="names, or: cheap, dear")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examine", nargs=4)
    arguments = parser.parse_args()
    if arguments.examine:
        name, seed, inputs, place = arguments.examine
        examine(name, int(seed), int(inputs), place)
        return
    from tests.fuzz.readers import DEAR, MAKERS, SHARES

    kinds = {"cheap": [name for name in MAKERS if name not in DEAR], "dear": list(DEAR)}
    names = [name for one in arguments.readers or list(MAKERS) for name in kinds.get(one, [one])]
    shares = {name: SHARES.get(name, 1) for name in names}
    counts = {}
    for name in names:
        inputs = max(1, round(arguments.inputs * shares[name] / sum(shares.values())))
        began = time.monotonic()
        counts[name] = dict(campaign(name, arguments.seed, inputs))
        print(f"{name}: {inputs} inputs in {time.monotonic() - began:.0f} s, {counts[name]}", flush=True)
    print(json.dumps(counts))
    sys.exit(any("FIND" in outcome for outcome in counts.values()))


if __name__ == "__main__":
    main()
