"""What is killed, started twice or spread over processes must end in the very files of a run that was left alone.

    python benchmarks/soak.py --kills 100 [--stage generate …] [--seed 0] [--json FILE] [--root DIR]

Six stages, each a `magi` command on tiny inputs made here, and each working on what the one before made: record, codec
and model (`magi train`), encode, evaluate, generate. In each stage:

    kills       the command is killed with SIGKILL at moments of its own (at start, while a file is being written, at
                any time) and given again, up to ROUND times before it may end; then every file must be that of the run
                left alone, and nothing hidden or half-written may lie beside them
    two         a second process starts in the folder of one at work: it must end with code 1 and one line, and the
                first must end as if it had been alone
    spread      2 threads against 1, and 2 processes against 1 (torchrun): same bits, or the largest difference

For kills, starts are forks of one process that has imported everything, so that a start costs no ten seconds.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from magi_video.cli import main as magi

TINY = """
    --height 32 --width 32 --patch-size 2 --codec small_vae --small-vae.width 8 --small-vae.batch-size 4
    --small-vae.steps 120 --small-vae.checkpoint-every 20 --small-vae.warmup-steps 10 --checkpoint-every 10
    --sample-every 30 --warmup-steps 10 --log-every 1 --workers 1 --tracker none
"""
ROUND = 5
"""Kills before a run may end and is compared."""
PATIENCE = 300
"""Seconds for a moment to come, and for a run to end."""
VOLATILE = ("seconds", "per_second", "memory", "finished", "started", "why", "files", "crc32")
"""Parts of the names of JSON values that no two runs share."""
UNCOMPARED = ("logs", ".lock", "log.jsonl", "report.html")
"""Names of files and folders that hold times."""
CLAIMED = ("recording.json", "run.json", "recipe.json", "evaluate.json", ".sample*")
"""What is written once a process holds its folder; the lock's own file is there a moment before."""
Moment = Callable[[Path, float], bool]


def fresh(*patterns: str) -> Moment:
    """When this start has made or changed something that matches a pattern below its folder."""

    def moment(out: Path, began: float) -> bool:
        return any(changed(path) > began for pattern in patterns for path in out.glob(pattern))

    return moment


def changed(path: Path) -> float:
    """When; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Stage:
    """A command, given in a folder that holds what the stages before made; its results go to `out`.

    Attributes:
        name: of the stage, and of the folder of its results.
        command: the arguments of `magi`, but for --out.
        moments: of its own at which it is killed, besides "at start" and "at any time".
        many: whether several processes can share it.
    """

    name: str
    command: str
    moments: dict[str, Moment]
    many: bool = True

    def arguments(self, out: str) -> list[str]:
        """The command's words."""
        return [*self.command.split(), "--out", out]


STAGES = [
    Stage(
        "record",
        "record magi/BouncingBalls-v0 --episodes 12 --max-frames 48",
        {"writing a video": fresh(".*.part"), "between episodes": fresh("*.mp4")},
        many=False,
    ),
    Stage(
        "codec",
        f"train tiny --data record {TINY} --steps 0",
        {
            "training": fresh("codec/checkpoints/step_*"),
            "writing a checkpoint": fresh("codec/checkpoints/.part-*"),
            "saving": fresh("codec/.unfinished*"),
        },
    ),
    Stage(
        "encode",
        "encode codec --data record --shard-size 20000 --workers 1",
        {"writing a shard": fresh("shards/.*"), "between shards": fresh("shards/*.json")},
    ),
    Stage(
        "model",
        f"train tiny --data record --latents encode {TINY} --steps 60",
        {
            "in a step": fresh("log.jsonl"),
            "writing a checkpoint": fresh("checkpoints/.part-*"),
            "publishing": fresh(".model.*.part"),
        },
    ),
    Stage(
        "evaluate",
        "evaluate model --data record --num 4 --frames 10 --batch-size 1 --no-fid --no-lpips --no-over-length",
        {"writing a sample": fresh("samples/.*"), "between samples": fresh("samples/*.npy")},
    ),
    Stage(
        "generate",
        "generate model --context record/episode_00000.mp4 --frames 60 --num 2 --save-arrays",
        {"writing videos": fresh(".sample*"), "after the videos": fresh("sample_*.mp4")},
    ),
]


class Run:
    """A fork of this process that gives a command in `root`; its standard error goes to a file."""

    def __init__(self, root: Path, arguments: list[str], errors: Path) -> None:
        self.errors = errors
        self.code: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.chdir(root)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
                code = magi(arguments)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 70
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        if self.code is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(ended[1])
        return self.code

    def wait(self) -> int:
        """The exit code; a run that hangs is an error."""
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise SystemExit(f"it hangs: {self.errors.read_text()}")
            time.sleep(0.005)
        return code

    def stop(self) -> None:
        """Let it stand where it is."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> int:
        """Let it go on to its end; the exit code."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
        return self.wait()

    def kill(self) -> bool:
        """Whether it was still alive."""
        alive = self.poll() is None
        if alive:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        return alive


@dataclass
class Soak:
    """The stages in a folder, and what came of them."""

    root: Path
    random: np.random.Generator
    tell: Callable[[str], None]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def start(self, stage: Stage, out: str) -> Run:
        """The stage's command, results in `out`."""
        return Run(self.root, stage.arguments(out), self.root / f"{stage.name}.stderr")

    def alone(self, stage: Stage) -> float:
        """The run to compare with, left alone; its seconds."""
        began = time.monotonic()
        run = self.start(stage, stage.name)
        if run.wait():
            raise SystemExit(f"{stage.name}, left alone, failed: {run.errors.read_text()}")
        return time.monotonic() - began

    def kills(self, stage: Stage, kills: int, seconds: float) -> None:
        """Kill it so often, at its moments in turn."""
        moments: dict[str, Moment | None] = {"at start": None, **stage.moments, "at any time": None}
        turns = itertools.cycle(moments.items())
        out, killed, faults, rounds = self.root / "killed", Counter[str](), list[str](), 0
        while killed.total() < kills and rounds <= kills:
            shutil.rmtree(out, ignore_errors=True)
            for _ in range(min(ROUND, kills - killed.total())):
                name, moment = next(turns)
                run = self.start(stage, out.name)
                if not self.wait_for(run, out, name, moment, seconds) or not run.kill():
                    break  # it ended before
                killed[name] += 1
            else:
                run = self.start(stage, out.name)
            if code := run.wait():
                raise SystemExit(f"{stage.name} does not go on (code {code}): {run.errors.read_text()}")
            rounds += 1
            faults += differences(self.root / stage.name, out) + left_over(out)
        self.results[stage.name] |= {"kills": dict(killed), "rounds": rounds, "faults": sorted(set(faults))}
        self.tell(f"{stage.name}: {killed.total()} kills {dict(killed)}, {rounds} runs compared, {sorted(set(faults))}")

    def wait_for(self, run: Run, out: Path, name: str, moment: Moment | None, seconds: float) -> bool:
        """Whether the moment came while it ran; then a little later, anywhere in what it does there."""
        began = time.time()
        share = {"at start": 0.1, "at any time": 0.9}.get(name)
        deadline = time.monotonic() + (PATIENCE if share is None else self.random.uniform(0, share * seconds))
        while run.poll() is None:
            if time.monotonic() > deadline:
                return share is not None
            if moment is not None and moment(out, began):
                time.sleep(self.random.choice([0, 0.003, 0.03]))
                return True
            time.sleep(0.001)
        return False

    def two(self, stage: Stage) -> None:
        """Start it twice in one folder."""
        out = self.root / "two"
        shutil.rmtree(out, ignore_errors=True)
        first = self.start(stage, out.name)
        began = time.time() - 1
        while not fresh(*CLAIMED)(out, began) and first.poll() is None:
            time.sleep(0.0005)
        first.stop()  # else it may be done before the second looks
        second = Run(self.root, stage.arguments(out.name), self.root / "second.stderr")
        codes = second.wait(), first.go_on()
        lines = [line for line in second.errors.read_text().splitlines() if line.strip()]
        faults = differences(self.root / stage.name, out) + left_over(out)
        if codes[1]:
            faults.append(f"the first ended with code {codes[1]}: {first.errors.read_text()[-300:]}")
        if codes[0] != 1 or not lines or "another" not in lines[-1]:
            faults.append(f"the second ended with code {codes[0]}: {lines[-1:]}")
        self.results[stage.name]["two processes in one folder"] = faults or "the second refused, the first unharmed"
        self.tell(f"{stage.name}: two at once: {faults or lines[-1]}")

    def spread(self, stage: Stage) -> None:
        """More threads, more processes."""
        plain = [sys.executable, "-m", "magi_video"]
        launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        ways = {"2 threads": (plain, "2"), "2 processes": ([*launched, "-m", "--", "magi_video"], "1")}
        for name, (command, threads) in ways.items():
            if name == "2 processes" and not stage.many:
                continue
            out = self.root / "spread"
            shutil.rmtree(out, ignore_errors=True)
            ended = subprocess.run(
                [*command, *stage.arguments(out.name)],
                cwd=self.root, env=os.environ | {"OMP_NUM_THREADS": threads}, capture_output=True, text=True,
            )  # fmt: skip
            if ended.returncode:
                told: str = f"failed: {ended.stderr[-500:]}"
            else:
                different = differences(self.root / stage.name, out)
                apart = distance(self.root / stage.name, out)
                told = f"{len(different)} files: {different[0]} …; {apart}" if different else "same"
            self.results[stage.name][name] = told
            self.tell(f"{stage.name}: {name} against 1: {told}")


def left_over(out: Path) -> list[str]:
    """Hidden and half-written files."""
    found = [path.relative_to(out) for path in out.rglob("*")]
    return [f"left: {path}" for path in found if path.name != ".lock" and (path.name[0] == "." or "part" in path.name)]


def files(out: Path) -> set[Path]:
    """Those that are compared."""
    found = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    return {path for path in found if not set(path.parts) & set(UNCOMPARED)}


def differences(whole: Path, other: Path) -> list[str]:
    """Files of two folders that do not hold the same, or that one of them lacks."""
    both = files(whole) & files(other)
    lacking = [f"only in one: {path}" for path in sorted(files(whole) ^ files(other)) if path.name[0] != "."]
    return lacking + [f"differs: {path}" for path in sorted(both) if content(whole / path) != content(other / path)]


def content(path: Path) -> Any:
    """What must be equal: bytes; of JSON the values but for times; of tensors all bits, in whatever order they lie."""
    if path.suffix == ".json":
        return lasting(json.loads(path.read_text()))
    if path.suffix == ".safetensors":
        return {name: (one.dtype.str, one.shape, one.tobytes()) for name, one in load_file(path).items()}
    return path.read_bytes()


def lasting(value: Any) -> Any:
    """A JSON value without times, names of folders and digests of files that hold times."""
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if not any(word in name for word in VOLATILE)}
        return {name: lasting(one) for name, one in kept.items() if name not in ("out", "threads")}
    return [lasting(one) for one in value] if isinstance(value, list) else value


def distance(whole: Path, other: Path) -> str:
    """The largest difference between the tensors and arrays of two folders."""
    worst = {"weights and latents": 0.0, "pixels of 255": 0.0}
    for path in sorted(files(whole) & files(other)):
        if path.suffix == ".npy":
            a, b = ({"": np.load(root / path)} for root in (whole, other))
        elif path.suffix == ".safetensors" and "optimizer" not in path.name and path.name != "videos.safetensors":
            a, b = (load_file(root / path) for root in (whole, other))
        else:
            continue
        kind = "pixels of 255" if path.suffix == ".npy" else "weights and latents"
        for name in a.keys() & b.keys():
            apart = np.abs(a[name].astype(np.float64) - b[name].astype(np.float64)).max(initial=0)
            worst[kind] = max(worst[kind], float(apart))
    told = [f"at most {value:.2g} in {name}" for name, value in worst.items() if value]
    return ", ".join(told) or "no tensor differs"


def main() -> None:
    """Parse, soak, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="in all; each stage gets its share")
    parser.add_argument("--stage", action="append", choices=[stage.name for stage in STAGES], help="only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--root", type=Path, help="an empty folder to work in, which stays")
    parser.add_argument("--no-spread", action="store_true", help="leave out threads and processes")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import magi_video.evaluation
    import magi_video.pipeline.pipeline
    import magi_video.training.run  # noqa: F401  (so that a fork need not import it again)

    root = arguments.root or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    soak = Soak(root.resolve(), np.random.default_rng(arguments.seed), lambda text: print(text, flush=True))
    wanted = [stage for stage in STAGES if stage.name in (arguments.stage or [one.name for one in STAGES])]
    began, times = time.monotonic(), os.times()
    for stage in STAGES[: STAGES.index(wanted[-1]) + 1]:
        seconds = soak.alone(stage)
        soak.tell(f"{stage.name}, left alone: {seconds:.1f} s")
        if stage in wanted:
            soak.results[stage.name] = {"seconds_alone": round(seconds, 2)}
            soak.kills(
                stage, arguments.kills // len(wanted) + (stage in wanted[: arguments.kills % len(wanted)]), seconds
            )
            soak.two(stage)
            if not arguments.no_spread:
                soak.spread(stage)
    now = os.times()
    spent = sum(now[:4]) - sum(times[:4])
    result = {"minutes": (time.monotonic() - began) / 60, "cpu_minutes": spent / 60, "stages": soak.results}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if not arguments.root:
        shutil.rmtree(root)
    sys.exit(
        any(one["faults"] or isinstance(one["two processes in one folder"], list) for one in soak.results.values())
    )


if __name__ == "__main__":
    main()
