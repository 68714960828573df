"""What may be compared, and what it is called."""

import pytest

from mibench.leaderboard.page.views import view_id, views_of

FEDERATED = {"setting": {"name": "federated", "batch_size": 4, "rounds": 0, "batch_norm": "eval", "clients": 5}}


@pytest.mark.parametrize(
    "options",
    [{"attack.iterations": 900}, {"prior.name": "style_gan"}, {"knowledge.labels": True}, {"seed": 3},
     {"convergence": "check"}, {"revisions": [1, 1, 1, 9, 9]}],
)  # fmt: skip
def test_attacker_seed_and_the_revisions_of_attack_and_defense_are_free(group, options):
    assert view_id(group("gmi", "bido", {"defense.a1": 0.1})) == view_id(group("kedmi", "none", options))


@pytest.mark.parametrize(
    "options",
    [{"dataset.size": 32}, {"setting.batch_size": 4}, {"target.width": 2}, {"budget.samples": 4}, {"control": "none"},
     {"evaluation.min_steps": 1000}, {"precision": "bfloat16"}, {"revisions": [2, 1, 1, 1, 1]},
     {"revisions": [1, 2, 1, 1, 1]}, {"revisions": [1, 1, 2, 1, 1]}],
)  # fmt: skip
def test_data_victim_budget_judges_and_their_revisions_are_not(group, options):
    assert view_id(group()) != view_id(group(options=options))


def test_another_task_is_another_view(group):
    assert view_id(group()) != view_id(group(task="instance"))
    assert len(view_id(group())) == 10 and set(view_id(group())) <= set("0123456789abcdef")


def test_names_are_plain_and_told_apart_by_what_differs(group):
    found = views_of(
        [
            group(options={**FEDERATED}, setting="federated", task="instance", access="gradients"),
            group(options={**FEDERATED, "setting.batch_size": 1, "setting.rounds": 3}, setting="federated",
                  task="instance", access="gradients"),
            group(options={**FEDERATED, "setting.batch_size": 1, "setting.pooled_epochs": None,
                           "setting.batch_norm": "train", "setting.share_buffers": True},
                  setting="federated", task="instance", access="gradients"),
            group(),
            group(options={"budget.samples": 4}),
            group(options={"evaluation.min_steps": 1000, "budget.samples": 4}),
            group(target="mlp", options={"target.name": "mlp"}),
        ]
    )  # fmt: skip
    assert {(one.sees, one.under) for one in found} == {
        ("client updates", "cnn, batch of 4"),
        ("client updates", "cnn, batch of 1, after 3 rounds"),
        ("client updates", "cnn, batch of 1, of a trained model, own batch norm, shared"),
        ("the trained model", "cnn, standard budget, 10 targets of 8 samples"),
        ("the trained model", "cnn, standard budget, 10 targets of 4 samples, judges of the usual length"),
        ("the trained model", "cnn, standard budget, 10 targets of 4 samples, judges of 1,000 steps"),
        ("the trained model", "mlp, standard budget"),
    }


def test_views_that_nothing_tells_apart_bear_their_ids(group):
    found = views_of([group(), group(options={"control": "none"})])
    assert len({one.under for one in found}) == 2 and all(one.under.endswith(one.id) for one in found)


def test_the_first_view_is_the_one_that_is_filled_best(group):
    full = [group(attack, defense) for attack in ("gmi", "kedmi") for defense in ("none", "bido")]
    sparse = {"budget.samples": 4}
    wide = [group("gmi", defense, sparse) for defense in ("none", "bido", "mid")] + [group("kedmi", "dp_sgd", sparse)]
    unmeasured = group(options={"budget.samples": 2}, status="skipped", reason="Vacuous: no.")
    found = views_of([*wide, *full, unmeasured])
    assert [len(one.groups) for one in found] == [4, 4], "a view without a number is none"
    assert found[0].id == view_id(full[0]), "four of four cells come before four of eight"


def test_a_view_in_which_the_cost_of_defenses_is_known_comes_before_a_fuller_one(group):
    unknown = [
        group(attack, defense, accuracy=float("nan")) for attack in ("gmi", "kedmi") for defense in ("none", "bido")
    ]
    known = [group("gmi", defense, {"budget.samples": 4}) for defense in ("none", "bido")]
    assert views_of([*unknown, *known])[0].id == view_id(known[0])
