import pytest

from magi_video.experiments.verdicts import References, Verdict, beats, joined, span, verdict

SEES = References(floor=(60, 90), shuffled=(200, 260), copy_last=500)


@pytest.mark.parametrize(
    ("a", "b", "answer", "why"),
    [
        ([100, 110, 120], [130, 140, 150], "confirmed", "worst seed (120) is better than B's best (130)"),
        ([130, 140, 150], [100, 110, 120], "refuted", "B's worst seed (120)"),
        ([100, 110, 135], [130, 140, 150], "cannot tell", "the seeds overlap: A 100…135, B 130…150"),
        ([100, 110, 120], [450, 460, 501], "cannot tell", "B (450…501) does not beat copying the last frame (500)"),
        ([600, 610, 620], [100, 110, 120], "cannot tell", "A (600…620) does not beat copying the last frame (500)"),
        ([100], [200], "cannot tell", "1 of 3 seeds; so far A 100, B 200"),
        ([100, 110, 120], [130, 140], "cannot tell", "2 of 3 seeds"),
    ],
)
def test_the_rule(a: list[float], b: list[float], answer: str, why: str) -> None:
    given = verdict(a, b, SEES)
    assert given.answer == answer and why in given.why


def test_a_score_that_cannot_see_motion_gives_no_verdict() -> None:
    blind = References(floor=(60, 90), shuffled=(85, 100), copy_last=500)
    assert verdict([1, 2, 3], [100, 110, 120], blind).answer == "cannot tell"


def test_scores_that_contradict_each_other_tell_nothing() -> None:
    yes, no, silent = Verdict("confirmed", "x"), Verdict("refuted", "y"), Verdict("cannot tell", "z")
    assert joined([yes, silent]) == Verdict("confirmed", "x; z")
    assert joined([no, no]).answer == "refuted"
    assert joined([yes, no]).answer == "cannot tell" and "contradict" in joined([yes, no]).why
    assert joined([silent, silent]).why == "z"


def test_words() -> None:
    assert beats([1, 2], 3) == "yes" and beats([1, 4], 3) == "some seeds" and beats([4], 3) == "no"
    assert span([20740.4]) == "20740" and span([1.23456, 2]) == "1.235…2"
