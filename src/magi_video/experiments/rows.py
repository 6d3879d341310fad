"""The rows of the paper's table 1: every registered paradigm, and the one that has two faithful builds.

A row is written `NAME` or `NAME:option=value,…`, the options being the paradigm's own; `NAME-GUARD` is the same without
what training does against exposure bias, by a name of `GUARDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from magi_video.recipe import Preset, check_paradigm, own_steps
from magi_video.registry import declared

ORDER = ("complete", "masked", "genie", "videomar", "diffusion", "diffusion-v", "raster", "window", "joint")
"""The order in which the rows are worth having; others come after."""
BASE = ORDER[0]
"""What the others are compared with."""
BUILDS = ("raster:attention=flat",)
"""Rows besides the paradigms' defaults."""


def without_intervals(preset: Preset) -> Preset:
    """Every clip at interval 1: what a model without dynamic intervals sees."""
    return replace(preset, data=replace(preset.data, max_interval=preset.data.min_interval))


def without_noise(preset: Preset) -> Preset:
    """Observations as they are."""
    return replace(preset, exposure=replace(preset.exposure, noise_levels=0))


GUARDS: dict[str, Callable[[Preset], Preset]] = {
    "no-interval": without_intervals,
    "no-noise": without_noise,
    "no-both": lambda preset: without_noise(without_intervals(preset)),
}
"""What a row may go without."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: as it is written.
        forcing, options: the paradigm, and what is changed of its own.
        guard: name of `GUARDS` that it goes without; "" for none.
    """

    name: str
    forcing: str
    options: tuple[tuple[str, str], ...] = ()
    guard: str = ""

    @classmethod
    def parse(cls, name: str) -> "Row":
        """The row that a name stands for; `MagiError` if there is no such paradigm or option."""
        forcing, _, rest = name.partition(":")
        guard = next((guard for guard in GUARDS if forcing.endswith(f"-{guard}")), "")
        forcing = forcing.removesuffix(f"-{guard}") if guard else forcing
        options = dict((one.partition("=")[0], one.partition("=")[2]) for one in rest.split(",") if one)
        check_paradigm(forcing, options)
        return cls(name, forcing, tuple(options.items()), guard)

    @property
    def base(self) -> str:
        """The row of complete teacher forcing that this one is compared with: without the same guard."""
        return f"{BASE}-{self.guard}" if self.guard else BASE

    @property
    def key(self) -> str:
        """The name as part of a file name."""
        return self.name.replace(":", "-").replace("=", "-").replace(",", "-")

    def preset(self, preset: Preset) -> Preset:
        """A recipe under this row's paradigm, with its own numbers of steps where it has any."""
        preset = GUARDS[self.guard](preset) if self.guard else preset
        return replace(
            preset,
            forcing=self.forcing,
            forcing_options=dict(self.options),
            sample=own_steps(self.forcing, preset.sample),
        )


def all_rows() -> list[str]:
    """Every row by name, in their order."""
    known = declared("paradigms")
    names = [name for name in ORDER if name in known] + [name for name in known if name not in ORDER]
    builds = [name for name in BUILDS if name.partition(":")[0] in known]
    return names + builds
