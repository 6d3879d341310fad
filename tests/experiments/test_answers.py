import pytest

from magi_video.experiments.answers import answers, as_a_whole
from magi_video.experiments.verdicts import Answer


@pytest.mark.parametrize(
    ("worlds", "answer"),
    [
        ({"balls": "confirmed", "coinrun": "confirmed", "ucf101": "cannot tell"}, "confirmed"),
        ({"balls": "confirmed"}, "cannot tell"),
        ({"coinrun": "confirmed", "ucf101": "confirmed"}, "cannot tell"),
        ({"balls": "confirmed", "coinrun": "confirmed", "ucf101": "refuted"}, "cannot tell"),
        ({"balls": "refuted", "coinrun": "refuted"}, "refuted"),
        ({"balls": "cannot tell", "coinrun": "cannot tell"}, "cannot tell"),
    ],
)
def test_a_claim_needs_two_worlds(worlds: dict[str, Answer], answer: str) -> None:
    assert as_a_whole(worlds) == answer


def test_every_recipe_has_its_claims() -> None:
    timed = {"rows": {"complete": {"cached": True, "verdict": "confirmed: R²"}, "window": {"cached": False}}}
    row = {"verdict": "refuted: FVD"}
    begun = {"starts": {"0": {"rows": {"genie": {"refused": "why"}, "complete": row}}}}
    found = answers({"kv-cache": {"balls": timed}, "starts": {"balls": begun, "coinrun": begun}})
    assert found == {
        "e. time is linear with the cache, and it saves time: complete, in balls": "confirmed",
        "f. complete begins from 0 frames, in balls": "refuted",
        "f. complete begins from 0 frames, in coinrun": "refuted",
        "f. complete begins from 0 frames": "refuted",
    }
