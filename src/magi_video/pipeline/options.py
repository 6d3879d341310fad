"""Options of generating videos into a folder. Does not import PyTorch."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from magi_video.errors import MagiError
from magi_video.fast.engine_name import AskedEngine
from magi_video.fast.precision import Precision
from magi_video.fast.threads import MOST_THREADS
from magi_video.models.architecture import LABEL, TEXT, check_interval
from magi_video.pipeline.actions import find_actions
from magi_video.pipeline.asked import check_controls, find_label, read_local
from magi_video.sampling.sampling import Sampling
from magi_video.settings import settings
from magi_video.video.names import is_picture, is_video


@settings
class GenerateOptions:
    """What the videos begin from, what they show, and how they are made."""

    first_frame: Path | None = None
    """Picture to begin from; another size is centre-cropped to the model's aspect and resized."""
    context: Path | None = None
    """Video to begin from instead. Neither: from nothing."""
    context_frames: int | None = None
    """Frames taken from it, `interval` apart; 1 if not said."""
    frames: Annotated[int, Field(ge=1)] = 16
    """Frames of each video, given ones included."""
    interval: Annotated[int, Field(ge=1)] = 1
    """Frames of the training videos' time from one frame to the next, 1…25."""
    sampling: Sampling = Sampling()
    """How a frame is sampled."""
    actions: str | None = None
    """What is done, for models with actions: "MOVE_FORWARD*30 MOVE_FORWARD+TURN_LEFT*12 NONE*5", over and over; or the
    .actions.jsonl file of a recording. Not said: unknown."""
    label: str | None = None
    """Class of the videos, its name or its number, for models with labels (magi info lists the classes)."""
    text: str | None = None
    """What the videos show, in words, for models with text."""
    negative_text: str | None = None
    """What guidance leads away from; not said: from videos of which nothing is known."""
    num: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Videos to make, those of a process all at once."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the first video; the next ones have seed + 1, seed + 2, …"""
    save_arrays: bool = False
    """Write `sample_000.npy` too: uint8 frames × height × width × 3, without loss."""
    precision: Precision = "auto"
    """Of the weights; auto takes the quicker one on this machine and says which."""
    engine: AskedEngine = "auto"
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    """CPU threads; if not said, one for a small model, else all cores."""
    compile: bool = False
    """Compile the transformer first, where there is a compiler; pays on GPUs, not on the CPUs it was measured on."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.first_frame and self.context:
            raise MagiError("give --first-frame or --context, not both")
        if self.context_frames is not None and not self.context:
            raise MagiError("--context-frames says how many frames of --context to take: give that too")
        if self.context_frames is not None and self.context_frames < 1:
            raise MagiError(
                f"--context-frames {self.context_frames}; expected 1 or more (to begin from nothing, leave --context "
                "out)"
            )
        if self.compile and self.engine in ("onnx", "cudagraphs"):
            raise MagiError(f"--compile is for PyTorch: choose that, or the engine {self.engine}")

    def check_model(self, model: str) -> None:
        """Raise a `MagiError` unless what a video begins from is there, and a model on this machine takes what is asked
        for; nothing is loaded."""
        for path, kind in ((self.first_frame, "a picture"), (self.context, "a video")):
            if path is not None and not path.exists():
                raise MagiError(f"{path}: no such file; expected {kind}")
        if self.first_frame is not None and is_video(self.first_frame) and not is_picture(self.first_frame):
            raise MagiError(f"--first-frame {self.first_frame}: a video; --context begins from one")
        if self.context is not None and is_picture(self.context) and not is_video(self.context):
            raise MagiError(f"--context {self.context}: a picture; --first-frame begins from one")
        if (found := read_local(model)) is None:
            return
        settings, architecture = found
        check_interval(self.interval, architecture.max_interval)
        check_controls(architecture.specs, {LABEL: self.label, TEXT: self.text})
        if self.actions is not None:
            find_actions(self.actions, settings["action_names"], self.frames, self.interval)
        if self.label is not None:
            find_label(self.label, settings["class_names"])
