"""An evaluation with small networks, for a launcher of several processes: MODEL DATA OUT NUM."""

import sys

from magi_video.evaluation.generation import evaluate
from tests.evaluation.networks import small_detectors

if __name__ == "__main__":
    model, data, out, num = sys.argv[1:5]
    evaluate(model, data, "small", num=int(num), out=out, detectors=small_detectors(), batch_size=3)
