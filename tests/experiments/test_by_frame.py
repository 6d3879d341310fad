from typing import Any

import pytest

from magi_video.experiments import by_frame


def run(area: list[float | None], hue: list[float]) -> dict[str, Any]:
    return {"budgets": {"equal_steps": 9}, "points": {"9": {"oracle": {"per_frame": {"area": area, "hue": hue}}}}}


@pytest.mark.parametrize(
    ("masked", "seeds", "answer"),
    [((0.1, 1), 3, "confirmed"), ((0.3, 3), 3, "refuted"), ((0.1, 3), 3, "cannot tell"), ((0.1, 1), 2, "cannot tell")],
)
def test_single_frames_are_better_by_both_errors(masked: tuple[float, float], seeds: int, answer: str) -> None:
    complete = [run([0.2, 0.2], [2, 2])] * 3
    answers = by_frame.verdicts({"masked": [run([masked[0]] * 2, [masked[1]] * 2)] * seeds, "complete": complete})
    assert answers["single frames of masked are better (5.2)"].startswith(answer)


@pytest.mark.parametrize(
    ("raster", "answer"),
    [((0.1, 0.5), "confirmed"), ((0.5, 0.55), "refuted")],  # the second begins worse and grows less
)
def test_growth_counts_from_the_first_generated_frame(raster: tuple[float, float], answer: str) -> None:
    rows = {"complete": [run([0.1, None, 0.2], [1, 2, 2])] * 3, "raster": [run(list(raster), list(raster))] * 3}
    if answer == "confirmed":
        rows["raster"] = [run(list(raster), [1, 9])] * 3
    assert by_frame.verdicts(rows)["errors grow faster in raster (5.5)"].startswith(answer)


def test_the_page_has_both_ends() -> None:
    reference = run([0.0, 0.05], [0.1, 0.2])["points"]["9"]
    page = by_frame.page(
        {"references": {"codec": reference}, "runs": {"raster": [run([0.1, 0.3], [1, 3])]}}, {"codec": "codec"}
    )
    assert (
        "| *codec* | 0.000 | 0.050 | 0.100 | 0.200 |" in page and "| `raster` | 0.100 | 0.300 | 1.000 | 3.000 |" in page
    )
    assert not by_frame.applies({"floor": {"oracle": {"side": 1}}})
