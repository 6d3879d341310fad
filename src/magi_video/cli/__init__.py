"""The `magi` command: one thin file a verb, each with a dataclass whose fields are the verb's options."""

import importlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from magi_video.cli.output import write_any_text
from magi_video.errors import MAX_NAME, Interrupted, MagiError, nearest
from magi_video.fast.threads import wait_passively
from magi_video.files.limits import FOLLOW_LINKS

ECHO = 2.0
"""Seconds within which the same signal again is a launcher's doing."""
VERBS = {
    "demo": "generate a video of 120 frames with a shipped model",
    "record": "record gameplay: video files with the actions beside them",
    "import": "convert an action data set of LeRobot or Minari into a recording",
    "train": "train a model on a folder of videos",
    "encode": "encode a data set once, for any number of trainings",
    "distill": "give a model a head of 1 to 4 denoise steps",
    "generate": "generate videos with a model",
    "evaluate": "continue real clips with a model and score the result",
    "score": "compare generated clips with real ones",
    "compare": "compare models or recipes on the same clips, with a verdict",
    "reproduce": "measure the paper's claims: train, generate, score, compare",
    "plan": "say what a training run will need: operations, memory, disk, days",
    "bench": "measure speed: seconds a frame, training clips/s, share of the peak",
    "serve": "serve a web page: generate, watch frames arrive, play",
    "info": "describe a model",
    "export": "write a model as torch.export programs or ONNX graphs",
    "push": "send a model to the Hugging Face hub, with a model card",
    "weights": "fetch the pretrained networks that metrics need",
}


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 on success, 1 for a mistake (one line says what), 2 for a wrong command
    line, 128 and the signal's number when one stopped it (a page that is no longer served has ended in order: 0)."""
    argv = sys.argv[1:] if argv is None else argv
    write_any_text()
    if argv[:1] == ["--follow-links"]:
        os.environ[FOLLOW_LINKS] = "1"  # so that processes of ours know too
        argv = argv[1:]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from magi_video import __version__

        print(f"magi-video {__version__}")
        return 0
    if argv[0] == "--print-completion":
        from magi_video.cli.completion import completion

        try:
            print(completion(argv[1] if len(argv) > 1 else "", VERBS))
        except MagiError as error:
            print(f"magi: {error}", file=sys.stderr)
            return 2
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        known = nearest(verb, VERBS) or f"; expected one of {', '.join(VERBS)}"
        print(f"magi: unknown command {verb[:MAX_NAME]!r}{known}", file=sys.stderr)
        return 2
    from magi_video.files.folders import no_empty_folders

    wait_passively()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of our dependencies; users can do nothing about them
    try:
        with ending_on_signals(), no_empty_folders():
            importlib.import_module(f"magi_video.cli.{verb}").main(rest)
    except MagiError as error:
        print(f"magi {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that may not be written: the user can fix that too
        if isinstance(error, BrokenPipeError):  # the reader of our output had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"magi {verb}: {error.filename or 'files'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if (asked := no_memory(error)) is None:
            raise
        print(f"magi {verb}: out of memory ({asked}); ask for less at once, or smaller", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
        print(f"magi {verb}: stopped by {signal.Signals(number).name}", file=sys.stderr)
        return 128 + number
    return 0


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Lets SIGTERM end a command as Ctrl-C does: by an exception, so that nothing is left half-written.

    A signal that comes again at once is a launcher's doing, which passes on what everybody has got already. Training
    has a better order to end in, see `training.stopping`.
    """
    before: dict[int, Any] = {}
    last = -ECHO

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() > last + ECHO:
            last = time.monotonic()
            raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
        for one in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(one) is not signal.SIG_IGN:  # as of a command in the background
                before[one] = signal.signal(one, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def no_memory(error: BaseException) -> str | None:
    """What an error says of memory that could not be had, its first sentence; None if it is about something else.

    PyTorch has a type of its own for the memory of a GPU, and none for that of the machine.
    """
    text = str(error).partition("\n")[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return text.partition(". GPU")[0] or "of the machine"
    _, found, asked = text.partition("DefaultCPUAllocator: ")
    return asked.partition(". ")[0] if found and "allocate memory" in asked else None


def usage() -> str:
    """What `magi --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {text}" for verb, text in VERBS.items())
    return f"""usage: magi [--follow-links] COMMAND [options]

Masked autoregressive video generation with complete teacher forcing (MAGI).

commands:
{verbs}

magi COMMAND --help lists the options of a command, with units and defaults;
magi --version prints the version; magi --print-completion bash (or zsh, fish)
writes a script by which the shell completes commands and options;
magi --follow-links COMMAND uses what links in a folder of videos lead to,
wherever it is (by default nothing outside is read)."""
