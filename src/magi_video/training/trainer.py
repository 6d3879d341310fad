"""The training loop: one for every paradigm, codec and head.

A run is a folder, and the folder is a model: `model_index.json`, `transformer/` (the averaged weights) and `codec/` can
be loaded by `MagiVideoPipeline.from_pretrained` from the first checkpoint on. Everything random in step s is drawn from
generators seeded by (seed, s, clip), so a resumed run makes the very steps that it would have made, and so does one of
another number of processes, but for the order in which it sums.
"""

import json
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from magi_video.data.clips import ClipSampler
from magi_video.distributed import Processes
from magi_video.errors import MagiError, counted
from magi_video.fast.compiling import compile_blocks
from magi_video.fast.probes import choose_precision
from magi_video.files.checkpoints import (
    Checkpoint,
    checkpoint_folder,
    checkpoint_steps,
    latest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_tensors,
    save_checkpoint,
)
from magi_video.paradigms import Clip
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.training.build import (
    TrainingData,
    build_accelerator,
    build_clips,
    build_cure,
    build_network,
    build_paradigm,
    build_pipeline,
    put_in_speed,
)
from magi_video.training.clips import as_clip
from magi_video.training.feasibility import micro_batch
from magi_video.training.loaders import clip_loader, loading_errors, workers_ended
from magi_video.training.log import append_log, cut_log
from magi_video.training.optimization import (
    SpikeGuard,
    build_average,
    build_optimizer,
    build_schedule,
    gradient_norm,
    scale_and_clip,
    step_if,
    widest,
)
from magi_video.training.outcome import Outcome, Reading, steps_behind
from magi_video.training.parallel import Objective, shard
from magi_video.training.preparation import derive_seed
from magi_video.training.preview import Preview
from magi_video.training.stopping import StoppedError, StopSignals
from magi_video.training.tracking import start_tracker

EVERY = 10**6
"""Checkpoints are kept while steps are skipped."""


class Trainer:
    """Trains one preset in one folder.

    Args:
        preset: the recipe.
        data: what it is trained on.
        out: the run's folder; a run found there is continued.
        seed: of everything random.
        signals: that ask to stop.
        origin: what else the model's record says of its data.
        kernels: see `put_in_speed`.
    """

    def __init__(
        self,
        preset: Preset,
        data: TrainingData,
        out: Path,
        seed: int = 0,
        signals: StopSignals | None = None,
        origin: dict[str, Any] | None = None,
        kernels: Mapping[str, bool] | None = None,
    ) -> None:
        self.preset, self.data, self.out, self.seed, self.origin = preset, data, out, seed, origin or {}
        self.config, self.signals, self.processes = preset.train, signals or StopSignals(), Processes()
        self.accelerator = build_accelerator(self.config, out)
        self.device = self.accelerator.device
        self.low = choose_precision(self.config.precision, self.device, "training").precision == "bf16"
        self.micro = micro_batch(self.config, self.processes.count)
        self.codec = data.codec.to(self.device)
        model, self.untaken = build_network(preset, data, seed)
        put_in_speed(model, self.config, self.device, self.micro, self.low, self.processes, kernels)
        self.exposure = build_cure(preset.exposure)
        self.core, self.objective = model, Objective(model, build_paradigm(preset, self.exposure))
        self.clips = build_clips(preset, data, model)
        self.pipeline = build_pipeline(preset, data, model, self.clips)
        if self.config.sharding == "full" and self.processes.count > 1:
            shard(self.objective, self.device, self.processes.count, self.low)
            self.model: nn.Module = self.objective
        else:
            self.model = self.accelerator.prepare(self.objective)
        self.optimizer = build_optimizer(model, self.config)
        self.schedule = build_schedule(self.optimizer, self.config.warmup_steps)
        self.ema = build_average(model.parameters(), self.config)
        self.guard = SpikeGuard(self.config.spike_factor, self.device)
        self.behind = steps_behind(self.device)
        self.step = 0
        self.saved = self._resume()

    def compile(self) -> str:
        """Compile the blocks and try them on an empty clip; says what came of it.

        Where that fails (no C++ compiler, say), training goes on uncompiled.
        """
        began = time.perf_counter()

        def attempt() -> None:
            core = self.core.train()
            shape = (self.micro, core.config.num_frames, core.num_tokens, core.token_dim)
            clip = Clip(
                torch.zeros(shape, device=self.device), torch.ones(self.micro, dtype=torch.long, device=self.device)
            )
            with self._autocast():
                total, _ = self.objective(clip, torch.Generator(self.device).manual_seed(0))
            total.backward()
            self.optimizer.zero_grad(set_to_none=True)

        problem = compile_blocks(self.core, attempt)
        if problem is not None:
            return f"not compiled, training goes on without: {problem}"
        return f"compiled the transformer's blocks in {time.perf_counter() - began:.0f} s"

    def run(self) -> Iterator[dict[str, float]]:
        """Train to `steps`; yields the figures of each step: step, loss, gradient_norm, skipped, clips_per_second."""
        # Steps that are made again are written again.
        start_tracker(self.accelerator, self.preset, self.out, self.step)
        preview = None
        if self.config.sample_every and self.processes.main:
            frames = self.codec.num_pixel_frames(self.core.config.num_frames)
            preview = Preview(self.data.videos, self.pipeline, frames, self.data.captions)
        if self.step >= self.config.steps and self.saved:
            self._publish(self.saved)  # nothing left to do, but the folder shall say what it was asked for
        sampler = ClipSampler(len(self.clips), self.seed, start=self.step * self.config.batch_size)
        loader = clip_loader(self.clips, sampler, self.micro, self.processes, self.config.workers)
        with loading_errors(self.step):
            batches = iter(loader)
        with workers_ended(batches, lambda: self.step):
            yield from self._steps(batches, preview)
        for tracker in self.accelerator.trackers:  # `end_training` would take the process group down as well
            tracker.finish()

    def _steps(self, batches: Iterator[dict[str, torch.Tensor]], preview: Preview | None) -> Iterator[dict[str, float]]:
        """The steps that are left, with checkpoints, sample sheets and the log.

        Nothing is saved while steps are skipped, but on a signal: the weights are as they were, and the last checkpoint
        from before shall not be dropped.
        """
        waiting: deque[Reading] = deque()
        due = sample_due = stopping = False
        read = 0.0
        while self.step < self.config.steps:
            began = time.perf_counter()
            with loading_errors(self.step):
                loss_norm_stop = self._optimize([next(batches) for _ in range(self.config.accumulate)])
            self.step += 1
            rate = float(self.schedule.get_last_lr()[0])
            waiting.append(Reading(self.step, loss_norm_stop, self.guard, rate, began))
            last = self.step == self.config.steps
            due |= self.step % self.config.checkpoint_every == 0
            sample_due |= bool(self.config.sample_every) and (self.step % self.config.sample_every == 0 or last)
            now = last or due or sample_due or stopping  # what is written must know its own step
            while waiting and (now or len(waiting) > self.behind):
                outcome = waiting.popleft().read(read)
                read = time.perf_counter()
                figures = self._figures(outcome)
                if outcome.step % self.config.log_every == 0 or outcome.step == self.config.steps or not outcome.taken:
                    self._log(figures)
                if self._is_dead(outcome):
                    yield figures
                    raise MagiError(self._diverged(outcome))
                stopping |= outcome.stop
                if outcome.step < self.step:
                    yield figures
                    continue
                sample = sample_due and not stopping and (outcome.taken or last)
                if last or stopping or sample or (due and outcome.taken):
                    self.save()
                    due = False
                if sample:
                    self.processes.once(lambda: self._write_preview(preview))
                    sample_due = False
                yield figures
                if stopping and not last:
                    raise StoppedError(self.signals.received, f"after step {self.step}, which is saved")

    def _figures(self, outcome: Outcome) -> dict[str, float]:
        """A step as it is logged and shown."""
        return {
            "step": outcome.step,
            "loss": outcome.loss,
            "gradient_norm": outcome.norm,
            "learning_rate": outcome.learning_rate,
            "skipped": outcome.skipped,
            "clips_per_second": self.config.batch_size / outcome.seconds,
        }

    def _is_dead(self, outcome: Outcome) -> bool:
        """Whether the run is not going to recover, or ends without having done so."""
        if outcome.step < self.config.steps:
            return outcome.in_a_row >= self.config.stop_after_skips
        return outcome.in_a_row >= min(2, self.config.stop_after_skips) or not outcome.accepted

    def _diverged(self, outcome: Outcome) -> str:
        """The message about a run that skips one step after the other."""
        skipped = outcome.in_a_row
        # What is wrong may have come with the last step that was taken.
        good = [one for one in checkpoint_steps(self.out / "checkpoints") if one < outcome.step - skipped]
        kept = f"the last good checkpoint is {checkpoint_folder(self.out / 'checkpoints', good[-1])}" if good else ""
        return (
            f"training diverged: {counted(skipped, 'step')} in a row skipped, the last of them {outcome.step}, since "
            f"the loss or the gradient is not finite or above {self.guard.factor:g} × the usual norm "
            f"{outcome.usual:.3g} (now loss {outcome.loss:.4g}, norm {outcome.norm:.4g}); "
            f"{kept or 'there is no checkpoint from before'}; "
            "lower --learning-rate, with another --out"
        )

    def _optimize(self, micro_batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """One optimiser step; returns the loss, the gradient's norm, and whether to stop, `[3]` on the device.

        Nothing here waits for the device: whether the step is taken is decided there. The loss is the mean over the
        hidden tokens of the whole batch. How many these are is known when all processes have drawn theirs, so what is
        differentiated is the sum, and the gradient is divided afterwards.
        """
        self.model.train()
        self.exposure.begin_step(self.step)
        total, tokens = torch.zeros(2, device=self.device)
        for index, batch in enumerate(micro_batches):
            clip = self._clip(batch)
            # Replicas average their gradients once; shards do it for every part, so that none holds a whole gradient.
            together = index + 1 == len(micro_batches)
            with nullcontext() if together else self.accelerator.no_sync(self.model):
                with self._autocast():
                    loss, count = self.model(clip, self._generators(index))
                loss.backward()
            total, tokens = total + loss.detach(), tokens + count
        parameters = list(self.core.parameters())
        local = torch.stack([total, tokens, gradient_norm(parameters), torch.zeros_like(total)])
        local[3].fill_(self.signals.received is not None)
        # The gradients' norm is the same everywhere but for rounding; its mean is the same to the bit.
        total_loss, hidden, norms, stops = self._sum(local).unbind()
        mean_loss, scale = total_loss / hidden, self.processes.count / hidden
        norm = norms / self.processes.count
        taken = self.guard.accepts(mean_loss, norm * scale)
        scale_and_clip(parameters, norm, scale, self.config.clip_norm)
        step_if(self.optimizer, taken)
        self.exposure.end_step(taken, self.processes.gather)
        self.ema.step(parameters, taken)
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return torch.stack([mean_loss, norm * scale, stops])

    def _autocast(self) -> torch.autocast:
        """Of the transformer; the head leaves it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.low)

    def _generators(self, part: int) -> list[torch.Generator]:
        """One for each clip of this process's share of a part of the batch, seeded by the clip's place in the batch."""
        first = self.micro * (part * self.processes.count + self.processes.index)
        seeds = [derive_seed(self.seed, 3, self.step, first + place) for place in range(self.micro)]
        return [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Of every process's values."""
        values = values.to(widest(values.device))
        if self.processes.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def _clip(self, batch: dict[str, torch.Tensor]) -> Clip:
        """A batch from the loader as what a paradigm learns from."""
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        latents_BTCHW = batch["frames"] if self.data.encoded else self.codec.encode(batch["frames"])
        text = None
        if self.data.captions is not None:
            text = self.data.captions.look_up(batch["video"], latents_BTCHW.shape[1]).to(self.device)
        return as_clip(self.core, batch, latents_BTCHW, text)

    def save(self) -> None:
        """Write a checkpoint, and its averaged weights as the run's model; all processes together.

        Raises:
            MagiError: it cannot be written; raised in every process.
        """
        state: dict[str, Any] = {
            "preset": asdict(self.preset),
            "seed": self.seed,
            "schedule": self.schedule.state_dict(),
            "guard": self.guard.state(),
            "ema_step": int(self.ema.count),
            "codec": self.codec.fingerprint(),
            "exposure": self.exposure.state(),
        }
        tensors = self._tensors() | {"optimizer": optimizer_tensors(self.optimizer)}
        folder, main = self.out / "checkpoints", self.processes.main
        keep = EVERY if state["guard"]["in_a_row"] else self.config.keep_checkpoints
        self.saved = self.processes.together(
            lambda: save_checkpoint(folder, self.step, tensors, state, keep, writes=main)
        )
        self._publish(self.saved)

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights, their averages, and what the cure for exposure bias keeps, by name."""
        named: dict[str, torch.Tensor] = dict(self.core.named_parameters())
        kept = self.exposure.tensors(self.core)
        found = {"model": named, "ema": dict(zip(named, self.ema.shadow_params, strict=True))}
        return found | ({"exposure": kept} if kept else {})

    def _publish(self, checkpoint: Checkpoint) -> None:
        """Make the folder a model: a checkpoint's averaged weights and how they came about."""

        def publish() -> None:
            self.pipeline.register_to_config(training=self._history())
            self.pipeline.save_pretrained(self.out, weights=checkpoint.file("ema"))

        self.processes.once(publish)

    def _history(self) -> dict[str, Any]:
        return {
            "preset": json.loads(json.dumps(asdict(self.preset))),
            "seed": self.seed,
            "steps": self.step,
            "skipped_steps": self.guard.state()["skipped"],
            "data": {
                "videos": len(self.data.videos.videos),
                "frames": sum(video.num_frames for video in self.data.videos.videos),
                "left_out": len(self.data.videos.skipped) + self.clips.left_out,
                "games": self.data.videos.games,
                **self.origin,
            },
        }

    def _find_checkpoint(self) -> Checkpoint | None:
        """The newest one; what an interrupted process left half-written, or logged later, is dropped."""
        checkpoint = latest_checkpoint(self.out / "checkpoints")
        for part in [*self.out.glob(".part-*"), *self.out.glob(".*.part")]:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
        cut_log(self.out / "log.jsonl", 0 if checkpoint is None else checkpoint.step)
        return checkpoint

    def _resume(self) -> Checkpoint | None:
        # All processes go on from the one that the main process sees.
        checkpoint = self.processes.once(self._find_checkpoint)
        if checkpoint is None:
            return None
        if checkpoint.state["codec"] != self.codec.fingerprint():
            raise MagiError(f"{checkpoint.folder}: was trained with another codec than {self.out / 'codec'}")
        for name, targets in self._tensors().items():
            restore_tensors(targets, checkpoint.tensors(name))
        restore_optimizer(self.optimizer, checkpoint.tensors("optimizer"))
        self.schedule.load_state_dict(checkpoint.state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate  # the schedule itself sets it only when it steps
        self.guard.restore(checkpoint.state["guard"])
        self.exposure.restore(checkpoint.state.get("exposure", {}))
        self.ema.count.fill_(checkpoint.state["ema_step"])
        self.step = checkpoint.step
        return checkpoint

    def _write_preview(self, preview: Preview | None) -> None:
        """Continuations by the model as it lies in the folder: a copy, so that sharded weights stay where they are."""
        if preview is not None:
            preview.pipeline = MagiVideoPipeline.from_pretrained(self.out).to(self.device)
            preview.pipeline.text_encoder = self.data.captions  # encoded already: no encoder is loaded for them again
            preview.write(self.out / "samples" / f"step_{self.step:08d}.png")
            preview.pipeline = self.pipeline

    def _log(self, figures: dict[str, float]) -> None:
        self.accelerator.log({name: value for name, value in figures.items() if name != "step"}, step=self.step)
        if self.processes.main:
            append_log(self.out / "log.jsonl", figures)
