"""What every codec is: pixels to normalised latents and back, with its own statistics, loadable from one folder.

`save_pretrained` writes `config.json` (architecture and latent statistics) and, where there are weights, one
safetensors file; `registry.load_codec` reads them back. Callers see only this interface, and it speaks of time
compression throughout, so a causal video VAE drops in where an image VAE was: ask `num_latent_frames` and
`latent_size`, never assume them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch

from magi_video.codecs.cost import find_encoder
from magi_video.codecs.sizes import LatentSizes, untrained_codec
from magi_video.errors import MagiError
from magi_video.models.configured import Network
from magi_video.recipe import CodecConfig, Preset
from magi_video.registry import Registry

OnStep = Callable[[int, dict[str, float]], None]
"""Called after each step of a codec's training: steps done, figures by name."""


class Codec(LatentSizes, Network):
    """Base of all codecs. A subclass sets the numbers of `LatentSizes` and writes `encode_raw` and `decode_raw`.

    Under `@register` a recipe can name it. The numbers of `LatentSizes` in the body of its class are then what a plan
    counts with before the codec is there; where they depend on the weights, an instance sets its own.

    Its `__init__`, under `capture_config`, takes `latents_mean` and `latents_std` and ends with
    `self.set_statistics(mean, std)`, so that the statistics travel in `config.json`.
    """

    name: ClassVar[str]
    """In recipes and on the command line."""
    title: ClassVar[str]
    """What it is, in one line."""
    settings: ClassVar[str] = ""
    """Group of the recipe that holds its own settings; "" for none. Numbers of `LatentSizes` among them count."""
    trained: ClassVar[bool] = False
    """Whether it is trained on the data of the run, by `train_on`; its settings then have `steps` and `batch_size`."""
    compresses: ClassVar[bool] = True
    """Whether latents differ from pixels, so that it saves time to keep them."""

    streams: bool = True
    """Whether `decode_stream` gives pixels before the last latent frame is there."""

    # Statistics as float32 tensors [C, 1, 1]; buffers, so that they follow the codec to its device.
    _latents_mean: torch.Tensor
    _latents_std: torch.Tensor

    # --- coding ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Encode pixels, float in [-1, 1], to float32 latents of zero mean and unit deviation per channel.

        Shapes: [B, T, 3, H, W] → [B, num_latent_frames(T), latent_channels, *latent_size(H, W)]. Deterministic: a
        variational codec gives the mode of its posterior. The codec's own precision holds, autocast or not: the same
        picture must not get other latents because of where it was encoded.
        """
        if video_BTCHW.ndim != 5 or video_BTCHW.shape[2] != 3 or not video_BTCHW.is_floating_point():
            raise MagiError(
                f"a codec encodes float video of shape [batch, frames, 3, height, width] in [-1, 1]; "
                f"got {str(video_BTCHW.dtype).removeprefix('torch.')} {list(video_BTCHW.shape)}"
            )
        self.num_latent_frames(video_BTCHW.shape[1])
        self.latent_size(*video_BTCHW.shape[3:])
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            latents_BTCHW = self.encode_raw(video_BTCHW).float()
        return (latents_BTCHW - self._latents_mean) / self._latents_std

    @torch.no_grad()
    def decode(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents [B, t, C, h, w] to float32 pixels [B, num_pixel_frames(t), 3, H, W] in [-1, 1]."""
        if latents_BTCHW.ndim != 5 or latents_BTCHW.shape[2] != self.latent_channels:
            raise MagiError(
                f"{type(self).__name__} decodes latents [batch, frames, {self.latent_channels}, height, width]; "
                f"got {list(latents_BTCHW.shape)}"
            )
        self.num_pixel_frames(latents_BTCHW.shape[1])
        raw_BTCHW = self.denormalize(latents_BTCHW)
        with torch.autocast(latents_BTCHW.device.type, enabled=False):
            return self.decode_raw(raw_BTCHW).float().clamp(-1, 1)

    def denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents [..., C, h, w] as the codec's own, in float32."""
        return latents.float() * self._latents_std + self._latents_mean

    def decode_stream(self, latents: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Decode latent frames [B, C, h, w] as they come; yields the pixels [B, T, 3, H, W] each of them completes.

        Joined along time, what comes out is what `decode` gives for all of them at once. Frame-by-frame codecs need
        no memory of the past; `temporal.TemporalCodec` is the base of those that do.
        """
        if self.temporal_factor != 1:
            raise NotImplementedError(f"{type(self).__name__} compresses time and must write its own decode_stream")
        for latents_BCHW in latents:
            yield self.decode(latents_BCHW[:, None])

    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Encode to the codec's own latents, before normalisation. Shapes as `encode`; the codec's own precision."""
        raise NotImplementedError

    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode the codec's own latents, after normalisation is undone. Shapes as `decode`; need not be clamped."""
        raise NotImplementedError

    # --- statistics -----------------------------------------------------------------------------------------------

    def set_statistics(self, mean_C: torch.Tensor | Sequence[float], std_C: torch.Tensor | Sequence[float]) -> None:
        """Set mean and standard deviation of each raw latent channel; they are saved with the codec's config."""
        mean_C = torch.as_tensor(mean_C, dtype=torch.float64, device="cpu")
        std_C = torch.as_tensor(std_C, dtype=torch.float64, device="cpu")
        if mean_C.shape != (self.latent_channels,) or std_C.shape != (self.latent_channels,):
            raise MagiError(
                f"latent statistics need {self.latent_channels} means and deviations, one per channel; "
                f"got {list(mean_C.shape)} and {list(std_C.shape)}"
            )
        if not (mean_C.isfinite().all() and std_C.isfinite().all() and (std_C > 0).all()):
            raise MagiError("latent statistics must be finite with deviations above zero")
        self.register_to_config(latents_mean=mean_C.tolist(), latents_std=std_C.tolist())
        # The codec may have moved since it was made; a first call finds no buffer yet.
        device = self._latents_mean.device if hasattr(self, "_latents_mean") else None
        self.register_buffer("_latents_mean", mean_C[:, None, None].to(device, torch.float32), persistent=False)
        self.register_buffer("_latents_std", std_C[:, None, None].to(device, torch.float32), persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move or cast the codec; the statistics follow to the device but stay float32 in a half-precision codec."""
        super()._apply(fn, recurse)
        if self._latents_mean.dtype != torch.float32:
            for name in ("latents_mean", "latents_std"):
                buffer = getattr(self, f"_{name}")
                values_C = buffer.new_tensor(self.config[name], dtype=torch.float32)
                setattr(self, f"_{name}", values_C[:, None, None])
        return self

    # --- from a recipe --------------------------------------------------------------------------------------------

    @classmethod
    def pretrained(cls, settings: CodecConfig) -> "Codec":
        """The codec that a recipe names, with the statistics it comes with; `MagiError` if it is not to be had."""
        return cls()

    @classmethod
    def sizes_for(cls, preset: Preset) -> LatentSizes:
        """What the codec of a recipe makes of sizes, before its weights are fetched or trained.

        Raises:
            MagiError: it does not take the recipe's pixels, or is not to be had.
        """
        find_encoder(preset)
        return untrained_codec(preset)

    @classmethod
    def train_on(
        cls,
        preset: Preset,
        batches: Callable[[int], torch.Tensor],
        measured: Sequence[torch.Tensor],
        folder: Path,
        *,
        on_step: OnStep | None = None,
        say: Callable[[str], None] | None = None,
    ) -> "Codec":
        """Train the codec on frames, save it in a folder and return it; the same call again goes on.

        Args:
            preset: the recipe.
            batches: gives the frames of each step, float `[B, 3, H, W]` in [−1, 1]: a pure function of the step.
            measured: such batches to measure the statistics of the latents on.
            folder: of the codec; checkpoints are kept in it until the training is done.
            on_step: called after each step.
            say: called with lines for the user.
        """
        raise NotImplementedError(f"{cls.__name__} is not trained here")

    # --- identity -------------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """SHA-256 over class, config (statistics included) and weights: equal exactly if the latents are the same."""
        settings = json.dumps(dict(self.config), sort_keys=True)
        digest = hashlib.sha256(f"{type(self).__name__} {settings}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


CODECS: Registry[Codec] = Registry("codecs", "codec")
"""Every codec that a recipe can name."""
register = CODECS.register
