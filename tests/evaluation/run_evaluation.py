"""An evaluation with small networks, for a launcher of several processes: MODEL DATA OUT NUM.

All processes but the main one would take kernels that round otherwise.
"""

import sys

from magi_video.distributed import Processes
from magi_video.evaluation.generation import evaluate
from magi_video.fast.kernel_choice import Kernel
from tests.evaluation.networks import small_detectors

if __name__ == "__main__":
    main = Processes("cpu").main
    Kernel.pays = property(lambda _: not main)  # type: ignore[assignment, method-assign, misc]
    model, data, out, num = sys.argv[1:5]
    evaluate(model, data, "small", num=int(num), out=out, detectors=small_detectors(), batch_size=3)
