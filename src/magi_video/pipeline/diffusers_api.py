"""What users of diffusers expect of a pipeline, whatever it makes: callbacks, interruption, offloading, the hub."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate.hooks import CpuOffload
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from magi_video.errors import MagiError

StepFunction = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None]
"""`function(pipe, step, timestep, callback_kwargs)`: see `StepCallback`."""


class StepCallback:
    """diffusers' `callback_on_step_end`, for a pipeline whose steps are frames.

    The function is called when a latent frame is made: for every frame, or with a codec that compresses time for every
    few. `step` is its number, given frames counted; `timestep` its time in frames of the training videos (that of its
    last frame, if it holds several). `callback_kwargs` holds the tensors asked for by name: "latents", the new frame,
    `[B, C, H, W]`, normalised. What the function returns under that name takes its place in the video and in the past
    of the frames to come. `pipe._interrupt = True` ends the video with this frame.

    Args:
        pipe: handed to the function.
        function: what to call.
        tensor_inputs: names of tensors for it, of `pipe._callback_tensor_inputs`.
        duration: from one step to the next, in frames of the training videos.

    Raises:
        MagiError: there is no tensor of such a name.
    """

    def __init__(
        self, pipe: "ConventionalPipeline", function: StepFunction, tensor_inputs: Sequence[str], duration: int
    ) -> None:
        known = pipe._callback_tensor_inputs
        if unknown := [name for name in tensor_inputs if name not in known]:
            raise MagiError(f"callback_on_step_end_tensor_inputs: {unknown[0]!r}; expected some of {', '.join(known)}")
        self.pipe, self.function, self.duration = pipe, function, duration
        self.wants_latents = "latents" in tensor_inputs

    def __call__(self, step: int, latents_BCHW: Tensor) -> Tensor:
        """Show a new latent frame to the function; returns the one to go on with."""
        shown = {"latents": latents_BCHW} if self.wants_latents else {}
        changed = (self.function(self.pipe, step, step * self.duration, shown) or {}).get("latents", latents_BCHW)
        if changed.shape != latents_BCHW.shape:
            raise MagiError(
                f"callback_on_step_end returned latents {list(changed.shape)}; expected {list(latents_BCHW.shape)}"
            )
        return changed.to(latents_BCHW)

    @property
    def stops(self) -> bool:
        """Whether the function asked to end the video."""
        return self.pipe.interrupt


class ConventionalPipeline(DiffusionPipeline):
    """The part of a pipeline that is the same whatever it makes."""

    _callback_tensor_inputs = ("latents",)
    _interrupt = False
    _num_timesteps: int | None = None

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked to end the video (`pipe._interrupt = True`)."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int | None:
        """Latent frames of the video that is being made, or was last; None for one without end."""
        return self._num_timesteps

    @property
    def offloads(self) -> bool:
        """Whether `enable_model_cpu_offload` is in force."""
        return any(isinstance(getattr(one, "_hf_hook", None), CpuOffload) for one in self.components.values())

    def visit(self, network: nn.Module) -> None:
        """Under `enable_model_cpu_offload`, bring a network to the device, and the one before it back.

        The hooks of accelerate wait for `forward`, and other methods of our networks are called before it or instead.
        """
        hook = getattr(network, "_hf_hook", None)
        if not isinstance(hook, CpuOffload):
            return
        if next(network.parameters(), None) is None:
            network.to(hook.execution_device)  # accelerate expects weights
        else:
            hook.pre_forward(network)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        *,
        metrics: Sequence[Path] = (),
        license_id: str | None = None,
        datasets: Sequence[str] = (),
    ) -> str:
        """Send the model to the hub with a card written from what it records; arguments and errors: `hub.push`.

        Returns:
            The repository's address.
        """
        from magi_video.hub.push import push  # which knows the pipeline

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push(
                folder,
                repo_id,
                private=private,
                commit_message=commit_message or "A model of magi-video",
                token=token,
                create_pr=create_pr,
                metrics=metrics,
                license_id=license_id,
                datasets=datasets,
            )

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Refused: a frame takes many passes, each of which would move every layer.

        Raises:
            MagiError: always.
        """
        raise MagiError("sequential offloading is not supported; use enable_model_cpu_offload()")

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """Refused, as `enable_sequential_cpu_offload`.

        Raises:
            MagiError: always.
        """
        raise MagiError("group offloading is not supported; use enable_model_cpu_offload()")
