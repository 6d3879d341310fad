"""Names of engines on the command line, and whether one can be had. Does not import PyTorch."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import AfterValidator
from typing_extensions import Doc

from magi_video.errors import MagiError

EngineName = Literal["auto", "torch", "onnx", "cudagraphs"]
"""What computes frames: PyTorch, on CPUs ONNX Runtime, on GPUs CUDA graphs; "auto": on CPUs the quicker of two, on GPUs
PyTorch (`magi_video.fast.engine_choice`)."""


def missing_packages(names: Sequence[str]) -> str | None:
    """The first of these packages that is not installed."""
    return next((name for name in names if find_spec(name) is None), None)


def check_engine(name: EngineName) -> EngineName:
    """The name; a `MagiError` if ONNX Runtime is asked for and not installed, or CUDA graphs where there is no GPU."""
    if name == "onnx" and missing_packages(("onnxruntime",)):
        from magi_video.installation import install_command  # which a pipeline does not need

        raise MagiError(f"ONNX Runtime is not installed: {install_command('export')}")
    if name == "cudagraphs":
        import torch  # which no other name needs so early

        if not torch.cuda.is_available():
            raise MagiError(
                "CUDA graphs need a GPU, and PyTorch finds none here: choose the engine torch, onnx or auto"
            )
    return name


AskedEngine = Annotated[
    EngineName,
    AfterValidator(check_engine),
    Doc(
        "What computes frames: torch; onnx, ONNX Runtime, with one graph for all of a mask step; cudagraphs, the same "
        "as a CUDA graph, on GPUs; auto measures torch and onnx, takes the quicker one and says so (torch on GPUs, and "
        "where the videos are too short to gain; an evaluation that is continued keeps that of its samples)."
    ),
]
"""An engine in options, with its `--help`: refused as soon as they are made, before any model is loaded."""
