"""The training loop: one for every paradigm, codec and head.

A run is a folder, and the folder is a model: `model_index.json`, `transformer/` (the averaged weights) and `codec/` can
be loaded by `MagiPipeline.from_pretrained` from the first checkpoint on. Everything random in step s is drawn from
generators seeded by (seed, s), so a resumed run makes the very steps that it would have made.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from diffusers.optimization import get_constant_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

from magi_video.checkpoints import latest_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from magi_video.codecs import Codec
from magi_video.data import ClipDataset, ClipRequest, ClipSampler, VideoFolder
from magi_video.data.clips import FrameReader
from magi_video.errors import MagiError
from magi_video.forcing import Clip, MaskRatio, NoiseInjection, find_forcing
from magi_video.models import ACTION, LABEL
from magi_video.models.compiling import compile_blocks
from magi_video.pipeline import MagiPipeline
from magi_video.precision import use_fast_float32
from magi_video.presets import Preset
from magi_video.training.kernels import use_training_kernels
from magi_video.training.optimization import SpikeGuard, build_optimizer
from magi_video.training.preparation import build_model, derive_seed, pressed_actions
from magi_video.training.preview import Preview


class Trainer:
    """Trains one preset in one folder.

    Args:
        preset: the recipe.
        videos: the data set.
        codec: from pixels to latents, with its statistics.
        reader: what clips are read through: latents already, or pixels.
        latents: whether `reader` yields latents.
        out: the run's folder; a run found there is continued.
        seed: of everything random.
    """

    def __init__(
        self,
        preset: Preset,
        videos: VideoFolder,
        codec: Codec,
        reader: FrameReader,
        latents: bool,
        out: Path,
        seed: int = 0,
    ) -> None:
        self.preset, self.videos, self.out, self.seed = preset, videos, out, seed
        self.config = preset.train
        project = ProjectConfiguration(str(out), logging_dir=str(out / "logs"))
        self.accelerator = Accelerator(
            mixed_precision=self.config.precision, log_with="tensorboard", project_config=project
        )
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            use_fast_float32()
        if self.config.batch_size % (self.accelerator.num_processes * self.config.accumulate):
            raise MagiError(
                f"batch_size {self.config.batch_size} does not divide into {self.accelerator.num_processes} processes "
                f"× accumulate {self.config.accumulate}"
            )
        self.codec, self.latents = codec.to(self.device), latents
        self.forcing = find_forcing(preset.forcing)(
            MaskRatio(preset.exposure.mask_ratio_min, preset.exposure.mask_ratio_std),
            NoiseInjection(preset.exposure.noise_levels, preset.exposure.noise_sigma),
            preset.exposure.diffusion_batch_mul,
        )
        actions = pressed_actions(videos) if preset.model.actions else []
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, 0))
            model = build_model(preset, codec, videos, actions)
        if self.config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        if self.device.type == "cpu":
            use_training_kernels(model)
        self.compiled = False
        self.names = [name for name, _ in model.named_parameters()]
        self.pipeline = MagiPipeline(
            model,
            self.codec,
            forcing=preset.forcing,
            height=preset.data.height,
            width=preset.data.width,
            frame_rate=videos.videos[0].frame_rate if videos.videos else 25.0,
            action_names=actions,
            class_names=videos.class_names if LABEL in model.condition_tokens.specs else [],
            mask_steps=preset.sample.mask_steps,
            denoise_steps=preset.sample.denoise_steps,
            training={},
        )
        self.clips = ClipDataset(
            videos,
            reader,
            codec.num_pixel_frames(model.config.num_frames),
            min_interval=preset.data.min_interval,
            max_interval=preset.data.max_interval,
            action_names=actions,
            temporal_factor=codec.temporal_factor,
        )
        optimizer = build_optimizer(model, self.config)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.core = self.accelerator.unwrap_model(self.model)
        # One schedule step an optimiser step, whatever the number of processes: hence not prepared.
        self.schedule = get_constant_schedule_with_warmup(optimizer, self.config.warmup_steps)
        self.ema = EMAModel(self.core.parameters(), decay=self.config.ema_decay, foreach=True)
        self.ema.to(self.device)
        self.guard = SpikeGuard(self.config.spike_factor)
        self.step = 0
        self._resume()

    def compile(self) -> str:
        """Compile the blocks and try them on an empty clip; says what came of it.

        Where that fails (no C++ compiler, say), training goes on uncompiled.
        """
        began = time.perf_counter()

        def attempt() -> None:
            micro = self.config.batch_size // self.accelerator.num_processes // self.config.accumulate
            core = self.core.train()
            tokens_BTND = torch.zeros(
                micro, core.config.num_frames, core.num_tokens, core.token_dim, device=self.device
            )
            clip = Clip(tokens_BTND, torch.ones(micro, dtype=torch.long, device=self.device))
            self.forcing.loss(core, clip, torch.Generator(self.device).manual_seed(0)).backward()
            self.optimizer.zero_grad(set_to_none=True)

        problem = compile_blocks(self.core, attempt)
        self.compiled = problem is None
        if problem is not None:
            return f"not compiled, training goes on without: {problem}"
        return f"compiled the transformer's blocks in {time.perf_counter() - began:.0f} s"

    def run(self) -> Iterator[dict[str, float]]:
        """Train to `steps`; yields the figures of each step: step, loss, gradient_norm, skipped, clips_per_second."""
        self.accelerator.init_trackers("tensorboard")
        preview = None
        if self.config.sample_every and self.accelerator.is_main_process:
            preview = Preview(self.videos, self.pipeline, self.codec.num_pixel_frames(self.core.config.num_frames))
        if self.step >= self.config.steps:
            self.publish()  # nothing left to do, but the folder shall say what it was asked for
        batches = iter(self._loader())
        while self.step < self.config.steps:
            began = time.perf_counter()
            loss, norm, taken = self._optimize([next(batches) for _ in range(self.config.accumulate)])
            self.step += 1
            figures = {
                "step": self.step,
                "loss": loss,
                "gradient_norm": norm,
                "learning_rate": self.schedule.get_last_lr()[0],
                "skipped": self.guard.skipped,
                "clips_per_second": self.config.batch_size / (time.perf_counter() - began),
            }
            last = self.step == self.config.steps
            if self.step % self.config.log_every == 0 or last or not taken:
                self._log(figures)
            if self.step % self.config.checkpoint_every == 0 or last:
                self.save()
            if preview and self.config.sample_every and (self.step % self.config.sample_every == 0 or last):
                self._write_preview(preview)
            yield figures
        self.accelerator.end_training()

    def _loader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """This process's clips, from the run's position on."""
        micro = self.config.batch_size // self.accelerator.num_processes // self.config.accumulate
        sampler = ClipSampler(len(self.clips), self.seed, start=self.step * self.config.batch_size)

        def requests() -> Iterator[list[ClipRequest]]:
            stream = iter(sampler)
            while True:  # process r takes the r-th share of every group: the global order is everyone's
                group = [next(stream) for _ in range(micro * self.accelerator.num_processes)]
                first = micro * self.accelerator.process_index
                yield group[first : first + micro]

        workers = self.config.workers
        return DataLoader(
            self.clips,
            batch_sampler=_Endless(requests),
            num_workers=workers,
            persistent_workers=False,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def _optimize(self, micro_batches: list[dict[str, torch.Tensor]]) -> tuple[float, float, bool]:
        """One optimiser step; returns the loss, the gradient's norm, and whether the step was taken."""
        self.model.train()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(micro_batches):
            seed = derive_seed(self.seed, 3, self.step, index, self.accelerator.process_index)
            generator = torch.Generator(self.device).manual_seed(seed)
            loss = self.forcing.loss(self.model, self._clip(batch), generator) / len(micro_batches)
            if index + 1 < len(micro_batches):
                with self.accelerator.no_sync(self.model):
                    self.accelerator.backward(loss)
            else:
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        mean_loss = float(self.accelerator.reduce(total, "mean"))
        taken = self.guard.accepts(mean_loss, norm)
        if taken:
            self.optimizer.step()
            self.ema.step(self.core.parameters())
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return mean_loss, norm, taken

    def _clip(self, batch: dict[str, torch.Tensor]) -> Clip:
        """A batch from the loader as what a paradigm learns from."""
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        latents_BTCHW = batch["frames"] if self.latents else self.codec.encode(batch["frames"])
        conditions = {}
        if ACTION in self.core.condition_tokens.specs:
            conditions[ACTION] = batch["action"].masked_fill(~batch["action_known"][..., None], torch.nan)
        if LABEL in self.core.condition_tokens.specs:
            conditions[LABEL] = batch["label"][:, None].expand(-1, latents_BTCHW.shape[1])
        return Clip(self.core.patchify(latents_BTCHW), batch["interval"], conditions)

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights as the run's model."""
        if not self.accelerator.is_main_process:
            return  # the others would write the same files
        tensors = {
            "model": dict(zip(self.names, self.core.parameters(), strict=True)),
            "ema": dict(zip(self.names, self.ema.shadow_params, strict=True)),
            "optimizer": optimizer_tensors(self.optimizer.optimizer),
            "rng": {"torch": torch.get_rng_state()},
        }
        state = {
            "preset": asdict(self.preset),
            "seed": self.seed,
            "schedule": self.schedule.state_dict(),
            "guard": self.guard.state(),
            "ema_step": self.ema.optimization_step,
            "codec": self.codec.fingerprint(),
        }
        save_checkpoint(self.out / "checkpoints", self.step, tensors, state, self.config.keep_checkpoints)
        self.publish()

    def publish(self) -> None:
        """Make the folder a model: the averaged weights and how they came about."""
        if not self.accelerator.is_main_process:
            return
        self.pipeline.register_to_config(training=self._history())
        with averaged_weights(self.ema, list(self.core.parameters())):
            self.pipeline.save_pretrained(self.out)

    def _history(self) -> dict[str, Any]:
        return {
            "preset": json.loads(json.dumps(asdict(self.preset))),
            "seed": self.seed,
            "steps": self.step,
            "skipped_steps": self.guard.skipped,
            "data": {
                "videos": len(self.videos.videos),
                "frames": sum(video.num_frames for video in self.videos.videos),
                "left_out": len(self.videos.skipped) + self.clips.left_out,
            },
        }

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.out / "checkpoints")
        if checkpoint is None:
            return
        if checkpoint.state["codec"] != self.codec.fingerprint():
            raise MagiError(f"{checkpoint.folder}: was trained with another codec than {self.out / 'codec'}")
        for name, target in (("model", list(self.core.parameters())), ("ema", self.ema.shadow_params)):
            stored = checkpoint.tensors(name)
            for key, parameter in zip(self.names, target, strict=True):
                parameter.data.copy_(stored[key])
        restore_optimizer(self.optimizer.optimizer, checkpoint.tensors("optimizer"))
        torch.set_rng_state(checkpoint.tensors("rng")["torch"])
        self.schedule.load_state_dict(checkpoint.state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate  # the schedule itself sets it only when it steps
        self.guard.restore(checkpoint.state["guard"])
        self.ema.optimization_step = checkpoint.state["ema_step"]
        self.step = checkpoint.step

    def _write_preview(self, preview: Preview) -> None:
        # Generation has a shape for every step: not worth a compilation each.
        stance = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        with stance, averaged_weights(self.ema, list(self.core.parameters())):
            self.core.eval()
            preview.write(self.out / "samples" / f"step_{self.step:08d}.png")

    def _log(self, figures: dict[str, float]) -> None:
        self.accelerator.log({name: value for name, value in figures.items() if name != "step"}, step=self.step)
        if self.accelerator.is_main_process:
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")


class _Endless:
    """A batch sampler without end."""

    def __init__(self, batches: Callable[[], Iterator[list[ClipRequest]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        return self.batches()


@contextmanager
def averaged_weights(ema: EMAModel, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """The model with its averaged weights for a while."""
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)
