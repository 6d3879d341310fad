"""Names of engines on the command line. Standard library alone: options are read without importing torch."""

from typing import Literal

EngineName = Literal["auto", "torch", "onnx"]
"""What computes frames: PyTorch, ONNX Runtime, or the quicker of the two (`magi_video.fast.engine_choice`)."""
