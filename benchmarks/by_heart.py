"""Four clips of four frames learned by heart: when does a paradigm go on from a frame as the clips do?

    python benchmarks/by_heart.py PARADIGM --out RUN [--options NAME VALUE …] [--head epsilon] [--steps 900]
        [--every 300] [--mask-ratio-min 0.7] [--mask-ratio-std 0.25]

Clips of a bright square that moves to the right, 16×16 pixels, the model of the preset `tiny` (head of 128). Printed at
each checkpoint: mean loss of the steps since the one before, PSNR to the clips of what follows the given frames (one or
as many as the paradigm needs), and how many of these frames are above 30 dB; RUN/sheet.png shows them. At the end, for
complete and masked teacher forcing, the loss of the last frame, all of it hidden, behind the complete past and behind
one masked as in training, and how far the head's x̂₀ is from the clean token when it is given the true past and noise of
some diffusion times; for Diffusion Forcing the same of a frame noised to these times, and of what sampling makes of it.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from magi_video.data.folder import VideoFolder
from magi_video.experiments.gap import last_frame_loss
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.paradigms import PARADIGMS, Clip, DiffusionForcing, find_paradigm, make_paradigm
from magi_video.paradigms.levels import levels_of
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.training.run import train
from magi_video.video.image import contact_sheet, to_model_range, write_image
from magi_video.video.video import write_video

TIMES = (600, 800, 900, 950)
LEVELS = (500, 800, 900, 950, 970, 990)
STEPS_OF_ITS_OWN = [name for name, paradigm in PARADIGMS.items() if "mask_steps" in paradigm.steps]


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
    preset = load_preset("tiny", forcing=options.forcing, **dict(zip(*[iter(options.options)] * 2, strict=True)))
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, max_interval=1),
        model=dataclasses.replace(preset.model, head_width=128, head=options.head),
        exposure=dataclasses.replace(
            preset.exposure,
            noise_levels=0,
            mask_ratio_min=options.mask_ratio_min,
            mask_ratio_std=options.mask_ratio_std,
        ),
        train=dataclasses.replace(
            preset.train, steps=options.steps, batch_size=8, learning_rate=2e-3, ema_decay=0.98, sample_every=0,
            precision="float32", checkpoint_every=options.every, keep_checkpoints=10_000, log_every=1,
        ),
    )  # fmt: skip


def continue_clips(pipe: MagiVideoPipeline, clips_NTHWC: np.ndarray, given: int) -> np.ndarray:
    """The clips as the model goes on from their first frames, in [0, 1]."""
    steps: dict[str, Any] = {} if pipe.config.forcing in STEPS_OF_ITS_OWN else {"mask_steps": 16}
    return pipe(
        video=clips_NTHWC[:, :given], num_frames=clips_NTHWC.shape[1], **steps,
        denoise_steps=100, generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip


@torch.no_grad()
def estimate_errors(pipe: MagiVideoPipeline, clips_NTHWC: np.ndarray) -> dict[int, float]:
    """Diffusion time → mean square error of x̂₀ for the last frame's tokens, all hidden behind the complete past."""
    model = pipe.transformer
    pixels = torch.stack([to_model_range(clip) for clip in clips_NTHWC])
    tokens_BTND = model.patchify(pipe.codec.encode(pixels))
    batch, frames, places, size = tokens_BTND.shape
    hidden_BTN = torch.zeros(batch, frames, places, dtype=torch.bool)
    hidden_BTN[:, -1] = True
    kind = find_paradigm(pipe.config.forcing).cached_kind
    z_MW = model(
        FrameSequence(
            tokens_BTND, hidden_BTN, torch.tensor([kind] * (frames - 1) + [MASKED]), torch.arange(frames),
            torch.ones(batch, dtype=torch.long), {"noise_level": torch.zeros(batch, frames, dtype=torch.long)},
            causal_mask(frames), predicted=1,
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


@torch.no_grad()
def errors_by_level(pipe: MagiVideoPipeline, clips_NTHWC: np.ndarray, steps: int = 100) -> dict[int, list[float]]:
    """Diffusion time → mean square errors of the last frame's tokens, noised to it behind the complete past.

    Of x̂₀ at that time, and of the frame that the sampler makes from there. Diffusion Forcing alone.
    """
    model, levels = pipe.transformer, levels_of(pipe.transformer.diffusion_head)
    paradigm = make_paradigm(pipe.config.forcing, pipe.config.forcing_options)
    assert isinstance(paradigm, DiffusionForcing)
    tokens_BTND = model.patchify(pipe.codec.encode(torch.stack([to_model_range(clip) for clip in clips_NTHWC])))
    clip = Clip(tokens_BTND, torch.ones(len(tokens_BTND), dtype=torch.long))
    noise, sampler = SampleNoise.from_seeds(list(range(len(tokens_BTND)))), levels.find_sampler(None)
    clean, direct = levels.times(1, None)[:1], levels.samplers[-1]
    target_B1ND = tokens_BTND[:, -1:]

    def predict(x_B1ND: Tensor, time: Tensor) -> Tensor:
        """The head's output for the last frame at a time."""
        past_BTND = levels.signal(paradigm.context_level) * tokens_BTND[:, :-1]
        times_BT = torch.full(tokens_BTND.shape[:2], float(paradigm.context_level))
        times_BT[:, -1] = float(time)
        z_BNW = model(paradigm.sequence(clip, torch.cat([past_BTND, x_B1ND], dim=1), times_BT))[:, -1]
        return levels.head.predict(x_B1ND[:, 0], time[0].float(), z_BNW)[:, None]

    found = {}
    for time in LEVELS:
        signal = levels.signal(time)
        sigma = 1 - signal if pipe.transformer.config.head == "flow" else (1 - signal**2) ** 0.5
        x_B1ND = signal * target_B1ND + sigma * noise.normal(*target_B1ND.shape[1:])
        now = torch.tensor([time])
        x0_B1ND = levels.step(x_B1ND, predict(x_B1ND, now), now, clean, direct, None)
        for then in torch.linspace(float(clean), time, steps + 1)[:-1].flip(0).to(clean.dtype).split(1):
            if now > then:
                drawn = noise.normal(*x_B1ND.shape[1:]) if sampler == "ancestral" else None
                x_B1ND, now = levels.step(x_B1ND, predict(x_B1ND, now), now, then, sampler, drawn), then
        found[time] = [round(float((one - target_B1ND).square().mean()), 4) for one in (x0_B1ND, x_B1ND)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forcing", choices=list(PARADIGMS))
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--head", choices=["epsilon", "flow"], default="epsilon")
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
    given = make_paradigm(pipe.config.forcing, pipe.config.forcing_options).given_frames
    losses = [json.loads(row)["loss"] for row in (run / "log.jsonl").read_text().splitlines()]
    made_NTHWC = clips_NTHWC
    for number, folder in enumerate(sorted((run / "checkpoints").glob("step_*"))):
        pipe.transformer.load_state_dict(load_file(folder / "ema.safetensors"), strict=False)
        made_NTHWC = continue_clips(pipe, clips_NTHWC, given)
        errors = np.square(made_NTHWC - clips_NTHWC / 255)[:, given:].mean((2, 3, 4))
        loss = np.mean(losses[number * options.every : (number + 1) * options.every])
        print(
            f"{folder.name}: loss {loss:.3f}, {-10 * np.log10(errors.mean()):.1f} dB, {int((errors < 1e-3).sum())} of "
            f"{errors.size} frames above 30 dB"
        )
    rows = [row for pair in zip(clips_NTHWC, (made_NTHWC * 255).round().astype(np.uint8), strict=True) for row in pair]
    write_image(options.out / "sheet.png", contact_sheet(rows))
    if options.forcing in ("complete", "masked") and options.head == "epsilon":
        print(
            "last frame:", last_frame_loss(run, clips_NTHWC, 1),
            "error of x̂₀ by time:", estimate_errors(pipe, clips_NTHWC),
        )  # fmt: skip

    if find_paradigm(options.forcing).past == "noisy":
        print("errors of x̂₀ and of the finished frame by time:", errors_by_level(pipe, clips_NTHWC))


if __name__ == "__main__":
    main()
