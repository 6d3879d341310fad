"""How fast a model is, and what share of the machine that is: `magi bench`.

`report.benchmark` measures; `generation.py`, `training.py` and `profiling.py` are its parts; `flops.py` holds what the
algorithm costs by formula, `machine.py` what the machine can do, `plot.py` the picture.
"""

from magi_video.benchmark.report import Options, Report, benchmark

__all__ = ["Options", "Report", "benchmark"]
