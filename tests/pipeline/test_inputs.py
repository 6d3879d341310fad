"""Values of the condition tokens, as a user of the pipeline gives them."""

from typing import Any

import numpy as np
import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models.architecture import ConditionSpec
from magi_video.pipeline.asked import find_label
from magi_video.pipeline.inputs import check_guidance, label_value, spread_texts

CLASSES = ConditionSpec(size=3)


@pytest.mark.parametrize("label", [2, [2, 2], np.int64(2), np.array([2, 2], np.uint8), torch.tensor([2])])
def test_a_label_for_all_videos_or_for_each(label: Any) -> None:
    assert label_value(label, CLASSES, 2).tolist() == [2, 2]


@pytest.mark.parametrize("label", ["red", 1.0, True, [0, 1, 2], [], None])
def test_what_is_no_class_is_refused(label: Any) -> None:
    with pytest.raises(MagiError, match="must be the number of a class, or one for each of 2 videos"):
        label_value(label, CLASSES, 2)
    with pytest.raises(MagiError, match="0…2"):
        label_value(3, CLASSES, 2)


def test_what_is_no_text_is_refused() -> None:
    for text in (3, [3], ["a", None]):
        with pytest.raises(MagiError, match="a text must be words"):
            spread_texts(text, 2)  # type: ignore[arg-type]


def test_one_word_is_no_list_of_conditions() -> None:
    with pytest.raises(MagiError, match=r"guide must be a list of conditions: \['label'\]"):
        check_guidance({"label": CLASSES}, "label", {"label": 1})


def test_a_class_by_its_name_or_number() -> None:
    assert [find_label(label, ["red", "2", "blue"]) for label in ("blue", "2", "0")] == [2, 1, 0]
    with pytest.raises(MagiError, match="no class is called 'green'; this model has red, 2, blue"):
        find_label("green", ["red", "2", "blue"])
    with pytest.raises(MagiError, match="trained without"):
        find_label("green", [])
