"""The fields of a preset as options of a command: `magi VERB PRESET-or-FILE [any field of the preset]`."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from tyro.conf import arg

from magi_video.cli.parsing import parse
from magi_video.codecs.config import SmallVAEConfig, VQConfig
from magi_video.errors import MagiError
from magi_video.presets import PRESETS, change_paradigm, load_preset
from magi_video.recipe import (
    CodecConfig,
    DataConfig,
    ExposureConfig,
    ModelConfig,
    Preset,
    TrainConfig,
    check_cure_begins,
    own_sampling,
)
from magi_video.registry import declared
from magi_video.sampling.sampling import Sampling
from magi_video.settings import settings


def named(folder: str) -> Any:
    """How --help shows a setting that names one of the registered classes; `folder` as of `declared`."""
    return arg(metavar="{" + ",".join(declared(folder)) + "}")


@settings
class DataOptions(DataConfig):
    """`DataConfig`, its choices shown."""

    dataset: Annotated[str, named("data")] = "folder"
    """"folder": any tree of video files; the others: their official layouts with their lists."""


@settings
class CodecOptions(CodecConfig):
    """`CodecConfig`, its choices shown."""

    codec: Annotated[str, named("codecs")] = "image_vae"
    """"image_vae" and "video_vae": a diffusers 2D or causal 3D VAE; "omnitokenizer": a converted OmniTokenizer VAE;
    "small_vae": our own 2D VAE, trained first on the same data; "vq": our own discrete one, trained likewise;
    "vq_model": a diffusers VQModel; "pixels": none."""


@settings
class ExposureOptions(ExposureConfig):
    """`ExposureConfig`, its choices shown."""

    exposure: Annotated[str, named("exposure")] = "noise"
    """Cure for exposure bias: what training shows of the frames before. "noise" is the paper's; all of them:
    docs/drift.md."""
    exposure_options: Annotated[dict[str, str], arg(metavar="NAME VALUE …")] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the cure itself, by name."""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Every field of a preset; a command adds its own."""

    forcing: Annotated[str, named("paradigms")] = "complete"
    """Paradigm: "complete" is MAGI, "masked" its baseline; all of them: docs/paradigms.md."""
    forcing_options: Annotated[dict[str, str], arg(metavar="NAME VALUE …")] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the paradigm itself, by name."""
    clips: Annotated[DataOptions, arg(name="")] = dataclasses.field(default_factory=DataOptions)
    codec: Annotated[CodecOptions, arg(name="")] = dataclasses.field(default_factory=CodecOptions)
    model: Annotated[ModelConfig, arg(name="")] = dataclasses.field(default_factory=ModelConfig)
    exposure: Annotated[ExposureOptions, arg(name="")] = dataclasses.field(default_factory=ExposureOptions)
    train: Annotated[TrainConfig, arg(name="")] = dataclasses.field(default_factory=TrainConfig)
    sample: Annotated[Sampling, arg(name="")] = dataclasses.field(default_factory=Sampling)
    small_vae: SmallVAEConfig = dataclasses.field(default_factory=SmallVAEConfig)
    vq: VQConfig = dataclasses.field(default_factory=VQConfig)

    def preset(self) -> Preset:
        """The recipe that the options make."""
        groups = {one.name: getattr(self, one.name) for one in dataclasses.fields(Preset) if one.name != "data"}
        groups["codec"] = CodecConfig(**vars(self.codec))
        groups["exposure"] = ExposureConfig(**vars(self.exposure))
        return Preset(data=DataConfig(**vars(self.clips)), **groups)


Options = TypeVar("Options", bound=RecipeOptions)


def split_recipe(argv: list[str], example: str, kinds: str = "or a JSON file") -> tuple[str, list[str]]:
    """The recipe that a command line begins with, and the rest; for a bare --help, an example and everything.

    Args:
        argv: after the verb.
        example: name of the preset whose fields a bare --help shows.
        kinds: what a recipe may be besides a preset's name, for the message.

    Raises:
        MagiError: it begins with an option.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise MagiError(f"name a preset first: one of {', '.join(PRESETS)}, {kinds}")
    return (example, argv) if argv[0].startswith("-") else (argv[0], argv[1:])


def find_forcing(argv: list[str]) -> str | None:
    """The paradigm that a command line asks for: its own defaults then take the place of the recipe's."""
    for index, one in enumerate(argv):
        name, has_value, value = one.partition("=")
        if name == "--forcing":
            value = value if has_value else "".join(argv[index + 1 : index + 2])
            return value if value in declared("paradigms") else None  # parsing refuses another
    return None


def parse_recipe(
    options: type[Options], verb: str, description: str, argv: list[str], example: str, **own: Any
) -> Options:
    """A command line whose first argument is a preset, the fields of which become the defaults.

    Args:
        options: the command's.
        verb: its name.
        description: for --help.
        argv, example: see `split_recipe`.
        own: defaults of the command's own options that have none; `tyro.MISSING` where one must be given.
    """
    name, rest = split_recipe(argv, example)
    preset = load_preset(name)
    groups = {one.name: getattr(preset, one.name) for one in dataclasses.fields(preset)}
    # Not a `Preset` yet: what the paradigm needs of clips or head may be further on in the command line.
    groups |= change_paradigm(preset, find_forcing(rest))
    groups |= {"clips": DataOptions(**vars(groups.pop("data"))), "codec": CodecOptions(**vars(preset.codec))}
    groups["exposure"] = ExposureOptions(**vars(preset.exposure))
    sampling = own_sampling(groups["forcing"], groups["sample"])
    groups["sample"] = Sampling(**sampling.given())  # so that --help shows real numbers
    default = options(**groups, **own)
    parsed = parse(options, f"magi {verb} {name}", rest, description, default)
    recipe = parsed.preset()  # refuses a name that there is not
    check_noise(rest, recipe.exposure.exposure)
    check_cure_begins(recipe.exposure, recipe.train.steps)
    return parsed


def check_noise(argv: list[str], exposure: str) -> None:
    """Refuse settings of the injected noise on the command line beside a cure that injects none.

    A recipe may hold them: there they are defaults.

    Args:
        argv: the command line.
        exposure: name of the cure.

    Raises:
        MagiError: which setting, and for which cures it is.
    """
    cures = declared("exposure")
    asked = {one.partition("=")[0].replace("_", "-") for one in argv}
    if not cures[exposure].get("injects") and (useless := sorted(asked & {"--noise-levels", "--noise-sigma"})):
        injecting = [name for name, cure in cures.items() if cure.get("injects")]
        raise MagiError(
            f"{useless[0]} is of the exposures that inject noise ({', '.join(injecting)}) and means nothing to "
            f"{exposure!r}"
        )
