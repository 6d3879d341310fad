"""A clip's random draws are its own: a batch in parts has the loss of the batch."""

from collections.abc import Callable

import pytest
import torch

from magi_video.models.random import draw
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip


def test_a_list_of_generators_gives_each_clip_what_it_gets_alone() -> None:
    seeds = [3, 1, 2]
    together = draw(torch.randn, (3, 4, 2), [torch.Generator().manual_seed(seed) for seed in seeds], "cpu")
    for index, seed in enumerate(seeds):
        alone = draw(torch.randn, (1, 4, 2), [torch.Generator().manual_seed(seed)], "cpu")
        assert torch.equal(together[index], alone[0])
    assert len(set(together[:, 0, 0].tolist())) == 3


@pytest.mark.parametrize("head", ["epsilon", "flow"])
@pytest.mark.parametrize("name", PARADIGMS)
def test_totals_of_the_parts_make_the_total_of_the_batch(
    name: str, head: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    conditions = {"noise_level": {"size": 6}, "action": {"size": 3, "kind": "vector", "drop": 0.5}}
    model, forcing = make_model(forcing=name, head=head, conditions=conditions), PARADIGMS[name]()
    tokens_BTND, interval_B, action_BTA = torch.randn(3, 5, 16, 12), torch.tensor([1, 7, 2]), torch.rand(3, 5, 3)

    def total(*places: int) -> tuple[float, float]:
        at = list(places)
        part = Clip(tokens_BTND[at], interval_B[at], {"action": action_BTA[at]})
        generators = [torch.Generator().manual_seed(10 + place) for place in places]
        loss, tokens = forcing.total_loss(model, part, generators)
        return float(loss.detach()), float(tokens)

    first, others, every = total(0), total(1, 2), total(0, 1, 2)
    assert first[1] != others[1], "unequal parts, or the mean of the means would do as well"
    assert every[1] == first[1] + others[1]
    assert every[0] == pytest.approx(first[0] + others[0], rel=1e-5)
