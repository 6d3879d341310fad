"""How fast a model is, and what share of the machine that is: `magi bench`.

`report.benchmark` measures; `generation.py`, `training.py` and `profiling.py` are its parts; `flops.py` holds what the
algorithm costs by formula, `counting.py` what really ran, `machine.py` what the machine can do, `plot.py` the picture.
"""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

if TYPE_CHECKING:
    from magi_video.benchmark.report import Options, Report, benchmark

__all__ = ["Options", "Report", "benchmark"]

# Loaded on first use: `magi plan` reads `flops.py` without importing torch.
__getattr__ = loader(__name__, dict.fromkeys(__all__, "report"))
