"""Effort and lift of the same attack at several lengths."""

from mibench.leaderboard.page.curves import effort, effort_curves


def test_a_curve_joins_the_budgets_of_one_attack_by_effort(group, sources):
    long = {"budget.name": "paper", "attack.iterations": 900}
    own = [
        group(cost=(10, 300)), group(options=long, cost=(10, 900), budget="paper"),
        group(options={"budget.name": "smoke"}, cost=(10, 50), budget="smoke"),
        group(options={"budget.name": "paper", "budget.samples": 4}, cost=(10, 800), budget="paper"),
        group("gmi", "bido", cost=(10, 400)), group("brepmi", cost=(70, 0)), group("random_prior", cost=(0, 0)),
        group(options={"dataset.size": 32}, cost=(10, 700)),
    ]  # fmt: skip
    made = sources(*own)
    place = next(place for place, view in enumerate(made.views) if own[0] in view.groups)
    found = {name: [one.group for one in curve] for name, curve in effort_curves(made, place)}
    assert found == {"brepmi": [own[5]], "gmi": [own[2], own[0], own[1]]}
    assert effort(own[5]) == 70 and effort(own[0]) == 300, "gradients count first, then queries"
