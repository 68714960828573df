"""Settings of a defense that come out identical."""

from mibench.leaderboard.identical import identical
from mibench.leaderboard.scoring import Score


def test_groups_with_the_same_numbers_to_the_last_bit_are_one_class(group):
    weak, middle = (
        group(defense="bido", options={"defense.a1": 0.1}),
        group(defense="bido", options={"defense.a1": 0.2}),
    )
    near = group(defense="bido", options={"defense.a1": 0.4}, lift=0.5 + 1e-15)
    more = group(defense="bido", options={"defense.a1": 0.5}, more=(Score(metric="psnr", value=3.0),))
    seeds = group(defense="bido", options={"defense.a1": 0.6}, seeds=2)
    assert identical([weak, middle, near, more, seeds]) == [[weak, middle]]
    assert identical([]) == [] == identical([weak])


def test_groups_without_a_number_are_in_no_class(group):
    skipped = [group(defense="bido", options={"defense.a1": a1}, status="skipped") for a1 in (0.1, 0.2)]
    assert identical(skipped) == []
