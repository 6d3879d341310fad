"""Where `magi reproduce` leaves its figures: OUT/results/RECIPE-WORLD.json. Standard library alone, so that a command
can look before PyTorch is imported."""

from collections.abc import Iterable
from pathlib import Path

from magi_video.errors import MagiError


def find_results(out: Path, recipes: Iterable[str]) -> dict[str, dict[str, Path]]:
    """Recipe → world → file of the figures, of the recipes that have any.

    Raises:
        MagiError: none has.
    """
    found = {
        recipe: {path.stem.removeprefix(f"{recipe}-"): path for path in paths}
        for recipe in recipes
        if (paths := sorted((out / "results").glob(f"{recipe}-*.json")))
    }
    if not found:
        raise MagiError(f"{out}: no results; expected results/RECIPE-WORLD.json, as magi reproduce writes them")
    return found
