"""What users of diffusers expect of a pipeline, whatever it makes: components, callbacks, offloading, the hub.

The names and their meanings are those of `DiffusionPipeline`. It is no base class here: importing it takes three times
as long as importing PyTorch.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.configured import Configured, Network

StepFunction = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None]
"""`function(pipe, step, timestep, callback_kwargs)`: see `StepCallback`."""


class StepCallback:
    """diffusers' `callback_on_step_end`, for a pipeline that makes a frame in each step.

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


class Output:
    """Base of a dataclass with access to its fields by name, `output["frames"]`, and by number, `output[0]`."""

    def __getitem__(self, key: str | int) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields' values."""
        return tuple(getattr(self, one.name) for one in fields(self))  # type: ignore[arg-type]


class ConventionalPipeline(Configured):
    """The part of a pipeline that is the same whatever it makes.

    A subclass registers its networks under their names (`register_modules`) and its settings (`register_to_config`).
    """

    config_name = "model_index.json"
    model_cpu_offload_seq: str
    """Order in which the networks are needed, "first->second"."""
    _callback_tensor_inputs = ("latents",)
    _interrupt = False
    _num_timesteps: int | None = None

    def __init__(self) -> None:
        self._modules: list[str] = []
        self._offload_hooks: list[Any] = []
        self._offload_device: torch.device | None = None
        self._progress_bar_config: dict[str, Any] = {}

    # --- components -----------------------------------------------------------------------------------------------

    def register_modules(self, **modules: Network) -> None:
        """Set or replace networks, which are attributes of these names."""
        for name, module in modules.items():
            setattr(self, name, module)
            if name not in self._modules:
                self._modules.append(name)

    @property
    def components(self) -> dict[str, Network]:
        """The networks, by name: what another pipeline can be made of."""
        return {name: getattr(self, name) for name in self._modules}

    @classmethod
    def from_pipe(cls, pipe: "ConventionalPipeline", **changes: Any) -> Self:
        """A pipeline of the same networks (shared, not copied) and settings, but for those that are given."""
        return cls(**{**pipe.components, **pipe.config, **changes})

    @override
    def saved_config(self) -> dict[str, Any]:
        """Of each network its module and class."""
        classes = {name: [type(one).__module__, type(one).__name__] for name, one in self.components.items()}
        return super().saved_config() | classes

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast all networks; arguments as `torch.nn.Module.to`."""
        for network in self.components.values():
            network.to(*args, **kwargs)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks are, by the first of them."""
        return next(iter(self.components.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks' weights, by the first of them."""
        return next(iter(self.components.values())).dtype

    # --- progress -------------------------------------------------------------------------------------------------

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Settings of the progress bar, as `tqdm` takes them: `disable=True`, `desc="video"`."""
        self._progress_bar_config = settings

    def progress_bar(self, total: int | None = None) -> Any:
        """A progress bar (`tqdm`) of so many steps."""
        from tqdm.auto import tqdm

        return tqdm(total=total, **self._progress_bar_config)

    # --- callbacks ------------------------------------------------------------------------------------------------

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked to end the video (`pipe._interrupt = True`)."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int | None:
        """Latent frames of the video that is being made, or was last; None for one without end."""
        return self._num_timesteps

    # --- offloading -----------------------------------------------------------------------------------------------

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Keep the networks in the CPU's memory, and bring each to a device when its turn comes (by accelerate).

        Args:
            gpu_id: number of the device.
            device: kind of device, with or without its number; the machine's accelerator if not given.

        Raises:
            MagiError: there is no accelerator, or the device's number is given twice.
        """
        from accelerate import cpu_offload_with_hook

        if device is None and (device := torch.accelerator.current_accelerator()) is None:
            raise MagiError("enable_model_cpu_offload: this machine has no accelerator; name a device")
        device = torch.device(device)
        if gpu_id is not None and device.index is not None:
            raise MagiError(f"enable_model_cpu_offload: gpu_id {gpu_id} beside {device}; give one of them")
        if device.type != "cpu":
            device = torch.device(device.type, device.index or gpu_id or 0)
        self.remove_all_hooks()
        self.to("cpu")
        hook = None
        for name in self.model_cpu_offload_seq.split("->"):
            _, hook = cpu_offload_with_hook(self.components[name], device, prev_module_hook=hook)
            self._offload_hooks.append(hook)
        self._offload_device = device

    def maybe_free_model_hooks(self) -> None:
        """Under `enable_model_cpu_offload`, bring all networks back to the CPU: the end of a call."""
        if self.offloads:
            self.enable_model_cpu_offload(device=self._offload_device)

    def remove_all_hooks(self) -> None:
        """End `enable_model_cpu_offload`."""
        for hook in self._offload_hooks:
            hook.remove()
        self._offload_hooks, self._offload_device = [], None

    @property
    def offloads(self) -> bool:
        """Whether `enable_model_cpu_offload` is in force."""
        return self._offload_device is not None

    @property
    def execution_device(self) -> torch.device:
        """Where frames are made: the networks' device, or the one that they are brought to."""
        return self._offload_device or self.device

    def visit(self, network: Network) -> None:
        """Under `enable_model_cpu_offload`, bring a network to the device, and the one before it back.

        The hooks of accelerate wait for `forward`, and other methods of our networks are called before it or instead.
        """
        if not self.offloads:
            return
        if next(network.parameters(), None) is None:
            network.to(self._offload_device)  # accelerate expects weights
        else:
            network._hf_hook.pre_forward(network)  # type: ignore[union-attr, operator]

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

    # --- the hub --------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the networks, each into a folder of its name, and then `model_index.json`."""
        for name, network in self.components.items():
            network.save_pretrained(Path(save_directory) / name)
        self.save_config(save_directory)

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
        from magi_video.hub.push import push  # the hub's client is not loaded before it is needed

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
