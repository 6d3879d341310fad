"""What a training run will need, told before it begins: operations, memory by part, disk, days."""

from magi_video.planning.hardware import DATA_SHEETS, Hardware, find_hardware
from magi_video.planning.plan import Plan, Way, make_plan

__all__ = ["DATA_SHEETS", "Hardware", "Plan", "Way", "find_hardware", "make_plan"]
