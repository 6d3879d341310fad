"""What all diffusers VAEs have in common as codecs: built from a config of a known class, or around a loaded one."""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Self

import torch
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.codecs.sizes import LatentSizes, UntrainedCodec
from magi_video.errors import MagiError
from magi_video.files.weights import class_name, load_strictly, read_config
from magi_video.models.configured import FrozenConfig, capture_config
from magi_video.recipe import CodecConfig, Preset

MOST_FACTOR = 4096
"""Channels of a latent, and pixels of a side or frames that become one: no VAE comes near."""


class VAECodec(Codec):
    """A diffusers VAE, of one of the classes in `vae_modules`, with per-channel latent statistics.

    `vae_class` is a key of `vae_modules`, `vae_config` that class's constructor arguments. Without `latents_mean` and
    `latents_std` the statistics are those that the VAE claims itself.
    """

    vae_modules: ClassVar[Mapping[str, str]]
    """The classes a config may name, and the module of each, imported when it is named; nothing else is ever built."""
    memory_format: ClassVar[torch.memory_format] = torch.preserve_format
    """Layout of the weights."""

    @capture_config
    def __init__(
        self,
        vae_class: str,
        vae_config: Mapping[str, Any],
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if vae_class not in self.vae_modules:
            raise MagiError(f"unknown VAE class {vae_class!r}; expected one of {', '.join(self.vae_modules)}")
        try:
            self.vae = self.vae_type(vae_class)(**vae_config)
            self.latent_channels, self.spatial_factor, self.temporal_factor, colours = self.measure(vae_class)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise MagiError(f"not a config of {vae_class}: {error}") from error
        given, made = self.vae.config.in_channels, self.vae.config.out_channels
        if given != colours or made != colours:
            raise MagiError(f"the VAE takes {given} and gives {made} channels; expected {colours} (RGB)")
        if latents_mean is None or latents_std is None:
            claimed_mean, claimed_std = self.claimed_statistics()
            latents_mean = claimed_mean if latents_mean is None else latents_mean
            latents_std = claimed_std if latents_std is None else latents_std
        self.set_statistics(latents_mean, latents_std)

    def measure(self, vae_class: str) -> tuple[int, int, int, int]:
        """As `factors`, of this VAE."""
        return self.factors(vae_class, self.vae.config)

    @staticmethod
    def factors(vae_class: str, settings: Any) -> tuple[int, int, int, int]:
        """Latent channels, spatial factor, temporal factor, and the input channels of RGB, from a VAE's config."""
        raise NotImplementedError

    @classmethod
    @override
    def pretrained(cls, settings: CodecConfig) -> Codec:
        return cls.from_vae(settings.vae, settings.vae_subfolder or None)

    @classmethod
    @override
    def sizes_for(cls, preset: Preset) -> LatentSizes:
        return cls.sizes_of(preset.codec.vae, preset.codec.vae_subfolder or None)

    @classmethod
    def sizes_of(cls, name: str, subfolder: str | None = None) -> UntrainedCodec:
        """Latent channels, spatial factor and temporal factor of a pretrained VAE; of the hub only its config is
        fetched. Arguments and errors as `from_vae`."""
        place = {} if subfolder is None else {"subfolder": subfolder}
        config = read_config(name, **place)
        vae_class = cls._known_class(name, config)
        defaults = {
            key: one.default
            for key, one in inspect.signature(cls.vae_type(vae_class).__init__).parameters.items()
            if one.default is not inspect.Parameter.empty
        }
        try:
            channels, spatial, temporal, _ = cls.factors(vae_class, FrozenConfig(defaults | config))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise MagiError(f"{name}: not a config of {vae_class}: {error}") from None
        for number in (channels, spatial, temporal):
            if type(number) is not int or not 1 <= number <= MOST_FACTOR:
                raise MagiError(f"{name}: a config that no VAE has ({str(number)[:20]}); expected 1 to {MOST_FACTOR}")
        return UntrainedCodec(channels, spatial, temporal)

    @classmethod
    def vae_type(cls, vae_class: str) -> Any:
        """The class of this name, a key of `vae_modules`."""
        return getattr(import_module(cls.vae_modules[vae_class]), vae_class)

    @classmethod
    def _known_class(cls, name: str, config: dict[str, Any]) -> str:
        vae_class = class_name(config)
        if vae_class not in cls.vae_modules:
            known = ", ".join(cls.vae_modules)
            raise MagiError(f"{name} holds {vae_class or 'no class name'}; expected one of {known}")
        return vae_class

    def claimed_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each raw latent channel, as the VAE has them itself."""
        return claimed_statistics(self.vae.config)

    @classmethod
    def from_vae(
        cls, name: str, subfolder: str | None = None, *, revision: str | None = None, variant: str | None = None
    ) -> Self:
        """Wrap a pretrained VAE from a folder or the hub (of a whole pipeline, `subfolder="vae"`).

        Its class is read from its config; weights must be safetensors and are held in float32 even if saved as fp16
        (`variant="fp16"` where the file is named so). `MagiError` if it cannot be had, or is of another class.
        """
        place: dict[str, Any] = {"subfolder": subfolder, "revision": revision}
        place = {key: value for key, value in place.items() if value is not None}
        vae_class = cls._known_class(name, read_config(name, **place))
        vae = load_strictly(cls.vae_type(vae_class), name, variant=variant, **place)
        return cls.from_module(vae)

    @classmethod
    def from_module(cls, vae: Any) -> Self:
        """Wrap a VAE that is already in memory (shared, not copied), with the statistics that it claims."""
        names = inspect.signature(type(vae).__init__).parameters
        settings = {key: value for key, value in vae.config.items() if key in names}
        # A second VAE is built and dropped; its random weights must not cost the caller's global generator a draw.
        with torch.random.fork_rng(devices=[]):
            codec = cls(type(vae).__name__, settings)
        vae.to(memory_format=cls.memory_format)
        if isinstance(vae, type(codec.vae)):
            codec.vae = vae
        else:  # diffusers' own class, of which ours is the equal
            codec.vae.load_state_dict(vae.state_dict(), assign=True)
        codec.set_statistics(*codec.claimed_statistics())
        return codec.to(vae.device).eval()


def claimed_statistics(settings: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation that a VAE's config claims: raw = latent · std / scaling_factor + mean (or shift_factor)."""
    channels = settings.latent_channels
    shift = settings.get("shift_factor") or 0.0
    mean = settings.get("latents_mean") or [shift] * channels
    std = settings.get("latents_std") or [1.0] * channels
    return list(mean), [value / settings.scaling_factor for value in std]
