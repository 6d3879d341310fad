"""What `magi compare` compares: models, or recipes that are trained first. Does not import PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magi_video.errors import MagiError
from magi_video.files.weights import is_hub_id, is_local, shipped_models
from magi_video.presets import PRESETS, load_preset
from magi_video.recipe import Preset


@dataclass(frozen=True)
class Contender:
    """One side of the comparison: a trained model, or a recipe.

    Attributes:
        name: in tables and folders.
        model: folder, hub id or shipped name of a model; None for a recipe.
        preset: the recipe; None for a model.
    """

    name: str
    model: str | None = None
    preset: Preset | None = None

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """`[NAME=]MODEL`, `[NAME=]PRESET` or `[NAME=]PRESET:FORCING`; a model comes before a preset of its name.

        Raises:
            MagiError: it is none of them, or the name is no name of a folder.
        """
        label, named, what = ("", "", text) if is_local(text) else text.rpartition("=")
        if named and not label:
            raise MagiError(f"{text!r} has no name before the =: give NAME={what}, or {what}")
        recipe, _, forcing = what.partition(":")
        if is_local(what):
            found = cls(label or Path(what).resolve().name, model=what)
        elif recipe in PRESETS or Path(recipe).is_file():
            preset = load_preset(recipe, *([forcing] if forcing else []))
            found = cls(label or Path(what.replace(":", "-")).stem, preset=preset)
        elif is_hub_id(what):
            found = cls(label or what.partition("/")[2], model=what)
        else:
            raise MagiError(
                f"{what!r} is no model (a folder, a hub id, {', '.join(shipped_models())}) and no recipe "
                f"({', '.join(PRESETS)}, a JSON file; recipe:forcing for another paradigm)"
            )
        if not found.name.strip(".") or "/" in found.name or "\\" in found.name:
            raise MagiError(f"{found.name!r} is no name for a folder: give NAME={what}")
        return found


def parse_contenders(texts: Sequence[str], train_data: str | Path | None = None) -> list[Contender]:
    """The contenders, as `Contender.parse` takes each.

    Args:
        texts: two or more.
        train_data: folder of videos that recipes are trained on.

    Raises:
        MagiError: fewer than two, names that are not different, a recipe without `train_data`; and as `parse`.
    """
    sides = [Contender.parse(text) for text in texts]
    if len(sides) < 2:
        raise MagiError(f"{len(sides)} to compare; expected two models or recipes, or more")
    if len({side.name for side in sides}) < len(sides):
        raise MagiError(f"names {', '.join(side.name for side in sides)}; expected different ones: give NAME=MODEL")
    recipes = [side for side in sides if side.preset is not None]
    if recipes and train_data is None:
        raise MagiError(f"{recipes[0].name} is a recipe and is trained first: give --train, a folder of other videos")
    return sides
