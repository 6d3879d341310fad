"""Four clips of four frames learned by heart: when does a paradigm go on from a frame as the clips do?

    python benchmarks/by_heart.py complete|masked --out RUN [--steps 900] [--every 300] [--mask-ratio-min 0.7]
        [--mask-ratio-std 0.25]

Clips of a bright square that moves to the right, 16×16 pixels, the model of the preset `tiny` (head of 128). Printed at
each checkpoint: PSNR to the clips of what follows the given first frames, frames of 12 above 30 dB; at the end the
loss of the last frame, all of it hidden, behind the complete past and behind one masked as in training, and how far the
head's x̂₀ is from the clean token when it is given the true past and noise of some diffusion times.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from magi_video.data.folder import VideoFolder
from magi_video.experiments.gap import last_frame_loss
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.paradigms import find_forcing
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.presets import Preset, load_preset
from magi_video.training.run import train
from magi_video.video.image import to_model_range
from magi_video.video.video import write_video

TIMES = (600, 800, 900, 950)


def write_clips(folder: Path) -> None:
    """Two squares that move by one pixel a frame and two that move by two, on two backgrounds."""
    for number in range(4):
        speed = 1 + number % 2
        video = np.full((4, 16, 16, 3), (20, 20 + 40 * speed, 60), np.uint8)
        for t in range(4):
            video[t, 4:10][:, (3 * number + speed * t + np.arange(4)) % 16] = (230, 200, 40)
        write_video(folder / f"{number}.mp4", video, 10.0, crf=1)


def recipe(options: argparse.Namespace) -> Preset:
    """`tiny` for these clips."""
    preset = load_preset("tiny")
    return dataclasses.replace(
        preset,
        forcing=options.forcing,
        data=dataclasses.replace(preset.data, max_interval=1),
        model=dataclasses.replace(preset.model, head_width=128),
        exposure=dataclasses.replace(
            preset.exposure,
            noise_levels=0,
            mask_ratio_min=options.mask_ratio_min,
            mask_ratio_std=options.mask_ratio_std,
        ),
        train=dataclasses.replace(
            preset.train, steps=options.steps, batch_size=8, learning_rate=2e-3, ema_decay=0.98, sample_every=0,
            precision="float32", checkpoint_every=options.every, keep_checkpoints=10_000,
        ),
    )  # fmt: skip


def errors_by_frame(pipe: MagiVideoPipeline, clips_NTHWC: np.ndarray) -> np.ndarray:
    """Mean square errors `[N, T − 1]` of what follows the first frames."""
    made_NTHWC = pipe(
        image=[clip[0] for clip in clips_NTHWC], num_frames=clips_NTHWC.shape[1], mask_steps=16,
        denoise_steps=100, generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    return np.square(made_NTHWC[:, 1:] - clips_NTHWC[:, 1:] / 255).mean((2, 3, 4))


@torch.no_grad()
def estimate_errors(pipe: MagiVideoPipeline, clips_NTHWC: np.ndarray) -> dict[int, float]:
    """Diffusion time → mean square error of x̂₀ for the last frame's tokens, all hidden behind the complete past."""
    model = pipe.transformer
    pixels = torch.stack([to_model_range(clip) for clip in clips_NTHWC])
    tokens_BTND = model.patchify(pipe.codec.encode(pixels))
    batch, frames, places, size = tokens_BTND.shape
    hidden_BTN = torch.zeros(batch, frames, places, dtype=torch.bool)
    hidden_BTN[:, -1] = True
    kind = find_forcing(pipe.config.forcing).cached_kind
    z_MW = model(
        FrameSequence(
            tokens_BTND, hidden_BTN, torch.tensor([kind] * (frames - 1) + [MASKED]), torch.arange(frames),
            torch.ones(batch, dtype=torch.long), {"noise_level": torch.zeros(batch, frames, dtype=torch.long)},
            causal_mask(frames), slice(-1, None),
        )
    ).flatten(0, 2)  # fmt: skip
    target_MD, head = tokens_BTND[:, -1].flatten(0, 1), model.diffusion_head
    assert isinstance(head, EpsilonHead)
    chain, generator = head.chain(z_MW.device), torch.Generator().manual_seed(0)
    found = {}
    for time in TIMES:
        eps_RMD = torch.randn(16, *target_MD.shape, generator=generator)
        noisy_RMD = chain.signal[time] * target_MD + chain.sigma[time] * eps_RMD
        steps_M = torch.full(target_MD.shape[:1], time)
        predicted_RMD = head.net(noisy_RMD, steps_M, head.net.condition_embed(z_MW))[..., :size]
        x0_RMD = (noisy_RMD - chain.sigma[time] * predicted_RMD) / chain.signal[time]
        found[time] = round(float((x0_RMD - target_MD).square().mean()), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forcing", choices=["complete", "masked"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--every", type=int, default=300)
    parser.add_argument("--mask-ratio-min", type=float, default=0.7)
    parser.add_argument("--mask-ratio-std", type=float, default=0.25)
    options = parser.parse_args()
    write_clips(options.out / "clips")
    run = train(recipe(options), options.out / "clips", options.out / "run")
    videos = VideoFolder(options.out / "clips")
    clips_NTHWC = np.stack([videos.read(number, range(4)).numpy() for number in range(4)])
    pipe = MagiVideoPipeline.from_pretrained(run)
    pipe.set_progress_bar_config(disable=True)
    for folder in sorted((run / "checkpoints").glob("step_*")):
        pipe.transformer.load_state_dict(load_file(folder / "ema.safetensors"), strict=False)
        errors = errors_by_frame(pipe, clips_NTHWC)
        exact = int((errors < 1e-3).sum())
        print(f"{folder.name}: {-10 * np.log10(errors.mean()):.1f} dB, {exact} of {errors.size} frames above 30 dB")
    print(
        "last frame:", last_frame_loss(run, clips_NTHWC, 1), "error of x̂₀ by time:", estimate_errors(pipe, clips_NTHWC)
    )


if __name__ == "__main__":
    main()
