"""How far bfloat16 autocast takes a training step from the truth, and what the step costs.

    python benchmarks/autocast.py [doom|atari|RUN] [--clips 4] [--draws 8] [--steps 5] [--threads 1]

Clips are the model's own, so that it reads what it was trained on. The truth is the same loss of the same draws with
the transformer in float64 (the head is float32 in training, and here). Printed are the loss's error (root of the mean
square over the draws, as a share of the loss), the gradient's (its distance to the truth over the truth's length, of
the transformer without the head), and processor seconds a step, for bfloat16 autocast and for float32.
"""

import argparse
import copy
import json
import statistics
import time

import torch

from magi_video.fast.allocator import keep_freed_memory
from magi_video.fast.kernels import use_training_kernels
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, Paradigm, make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline


def step(
    model: MagiVideoTransformer, paradigm: Paradigm, clip: Clip, seed: int, low: bool
) -> tuple[float, list[torch.Tensor]]:
    """The loss, and its gradient by every weight of the transformer that has one."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = paradigm.loss(model, clip, torch.Generator().manual_seed(seed))
    loss.backward()
    named = model.named_parameters()
    return loss.item(), [p.grad for name, p in named if p.grad is not None and not name.startswith("diffusion_head.")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="doom")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each precision")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    pipe = MagiVideoPipeline.from_pretrained(options.model)
    model = pipe.transformer.float()
    paradigm = make_paradigm(pipe.config.forcing, pipe.config.forcing_options)
    frames = pipe.codec.num_pixel_frames(model.config.num_frames)
    made_BTHWC = pipe(
        num_frames=frames, num_videos=options.clips, sampling="fast", generator=torch.Generator().manual_seed(0)
    ).frames
    with torch.no_grad():
        latents_BTCHW = pipe.codec.encode(torch.from_numpy(made_BTHWC).movedim(-1, 2) * 2 - 1)
    clip = Clip(model.patchify(latents_BTCHW), torch.ones(options.clips, dtype=torch.long))
    model.train()
    exact = copy.deepcopy(model).double()
    exact.diffusion_head.float()
    use_training_kernels(model)
    errors: dict[str, list[tuple[float, float]]] = {"bf16": [], "float32": []}
    for seed in range(options.draws):
        loss, gradient = step(exact, paradigm, clip, seed, False)
        length = sum(float(g.square().sum()) for g in gradient) ** 0.5
        for name, low in (("bf16", True), ("float32", False)):
            loss_low, ours = step(model, paradigm, clip, seed, low)
            away = sum(float((a.double() - b).square().sum()) for a, b in zip(ours, gradient, strict=True)) ** 0.5
            errors[name].append((loss_low / loss - 1, away / length))
    seconds: dict[str, list[float]] = {"bf16": [], "float32": []}
    for number in range(1 + options.steps):
        for name, low in (("bf16", True), ("float32", False)):
            began = time.process_time()
            step(model, paradigm, clip, number, low)
            seconds[name] += [time.process_time() - began] if number else []
    figures = {
        name: {
            "loss error": statistics.fmean(error**2 for error, _ in errors[name]) ** 0.5,
            "gradient error": statistics.fmean(error for _, error in errors[name]),
            "CPU s a step": statistics.median(seconds[name]),
        }
        for name in errors
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
