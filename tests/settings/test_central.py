import dataclasses

import pytest
import torch

from mibench.access import ExplanationsView, LabelsView, Ledger, NoView, ScoresView, WhiteBoxView
from mibench.card import DefenseCard
from mibench.defenses.base import Defense
from mibench.errors import BudgetExhausted, IncompatibleCellError, QueryRefused, UserError
from mibench.settings.base import Scene
from mibench.settings.central import Central
from mibench.settings.victim import Blueprint
from mibench.targets.mlp import Mlp
from mibench.training import Recipe


class Rounding(Defense):
    """Answers with the most probable class alone."""

    card = DefenseCard(
        name="rounding", title="Rounding", modalities=("image",), hooks=("output",), affects=("scores", "labels")
    )

    def output(self, probabilities):
        return torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1]).to(probabilities)


class Guest(Defense):
    """Answers every customer eight examples."""

    card = DefenseCard(name="guest", title="Guest", modalities=("image",), hooks=("output",), affects=("scores",))
    remembers = True

    def answer(self, x, probabilities, customer):
        if customer is None:
            return probabilities
        asked = customer.memory.setdefault("asked", torch.zeros(1))
        if asked + len(x) > 8:
            customer.facts["queries_refused"] = len(x)
            raise QueryRefused("That is enough.")
        asked += len(x)
        return probabilities


class Negative(Defense):
    """Shows the model every input inverted."""

    card = DefenseCard(
        name="negative", title="Negative", modalities=("image",), hooks=("input",), affects=("white_box", "scores")
    )

    def input(self, x):
        return 1 - x


@pytest.fixture
def stage(digits8, workshop):
    """Trains a victim under a defense: ``stage(defense) -> (setting, scene, victim)``."""

    def make(defense=None, epochs=5):
        recipe = Recipe(epochs=epochs, lr=5e-3)
        blueprint = Blueprint("mlp", lambda spec: Mlp(spec=spec), recipe, {"epochs": epochs})
        defense = defense or Defense()
        key = {"defense": type(defense).__name__}
        scene = Scene(split=digits8, blueprint=blueprint, defense=defense, defense_key=key, workshop=workshop, seed=0)
        setting = Central()
        return setting, scene, setting.train(scene, digits8.private, "victim")

    return make


def view_of(stage, access, ledger=None):
    setting, scene, victim = stage
    return setting.observe(scene, victim, scene.split.private, access, 0, ledger or Ledger()).view


@pytest.mark.parametrize(
    ("access", "kind"),
    [
        ("none", NoView),
        ("white_box", WhiteBoxView),
        ("scores", ScoresView),
        ("labels", LabelsView),
        ("explanations", ExplanationsView),
    ],
)
def test_each_access_gives_its_own_view(stage, access, kind):
    assert type(view_of(stage(), access)) is kind


def test_observed_answers_are_those_of_others_to_private_training_inputs(stage, digits8):
    """``Guest`` answers every customer eight examples, so nine answers are those of nine customers."""
    train = digits8.private.train

    def observed(defense, count, ledger):
        setting, scene, victim = stage(defense)
        return setting.observe(scene, victim, digits8.private, "scores", count, ledger), victim

    ledger = Ledger()
    seen, victim = observed(Guest(), 9, ledger)
    assert torch.equal(seen.view.observed, torch.cat([victim.predict_proba(x) for x in seen.secret.x.split(1)]))
    assert len(seen.secret) == len(seen.secret.x.unique(dim=0)) == 9 and ledger.queries == 0
    rows = [int((train.x == x).flatten(1).all(1).nonzero()[0]) for x in seen.secret.x]
    assert torch.equal(train.y[rows], seen.secret.y) and rows != list(range(9))
    assert torch.equal(observed(Guest(), 9, ledger)[0].secret.x, seen.secret.x), "a second look shows the same"
    hard = observed(Rounding(), 3, ledger)[0].view.observed
    assert set(hard.unique().tolist()) == {0.0, 1.0}, "they pass the defense"
    assert observed(None, 0, ledger)[0].view.observed is None and observed(None, 0, ledger)[0].secret is None
    with pytest.raises(UserError, match=r"lower budget\.targets"):
        observed(None, len(train) + 1, ledger)


def test_an_access_the_setting_does_not_offer_is_refused(stage):
    with pytest.raises(UserError, match="does not offer access 'gradients'"):
        view_of(stage(), "gradients")


@pytest.mark.parametrize("x", [torch.tensor([[1, 2]]), torch.tensor([[0.2, 1.0]])])
def test_inputs_without_a_gradient_have_no_saliency_map(stage, monkeypatch, x):
    """Ids of tokens, and categories, which an entry reads as numbers that are looked up."""
    built = stage()
    module = torch.nn.Sequential(torch.nn.Embedding(3, 4), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    monkeypatch.setattr(built[2], "model", lambda values: module(values.long()))
    monkeypatch.setattr(built[2], "answer", lambda values, customer: torch.full((len(values), 2), 0.5))
    with pytest.raises(IncompatibleCellError, match="access scores or labels"):
        view_of(built, "explanations").query(x)


def test_weaker_views_do_not_hold_the_module(stage):
    for access in ("scores", "labels", "explanations", "none"):
        view = view_of(stage(), access)
        fields = [getattr(view, field.name) for field in dataclasses.fields(view)]
        assert not any(isinstance(field, torch.nn.Module) for field in fields)


def test_the_victim_is_trained_and_served_in_the_canonical_range(stage, digits8):
    test = digits8.private.test
    scores = view_of(stage(), "scores").query(test.x)
    torch.testing.assert_close(scores.sum(1), torch.ones(len(test)))
    assert float((scores.argmax(1) == test.y).float().mean()) > 0.9
    grey = torch.full((1, 1, 8, 8), 0.5)  # the same logits through every route
    white = view_of(stage(), "white_box")
    torch.testing.assert_close(white.logits(grey).softmax(1), view_of(stage(), "scores").query(grey))
    torch.testing.assert_close(white.model.head(white.model.features(grey)), white.logits(grey))


def test_scores_and_labels_pass_the_output_hook_and_white_box_does_not(stage, digits8):
    x = digits8.private.test.x[:50]
    defended = stage(Rounding())
    hard = view_of(defended, "scores").query(x)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert set(view_of(defended, "explanations").query(x)[0].unique().tolist()) == {0.0, 1.0}
    soft = view_of(defended, "white_box").logits(x).softmax(1)
    assert len(soft.unique()) > 50
    torch.testing.assert_close(view_of(defended, "labels").query(x), soft.argmax(1))


def test_the_input_hook_lies_on_every_path(stage, digits8):
    x = digits8.private.test.x[:50]
    defended = stage(Negative())
    _, _, victim = defended
    inner = victim.module.normalise.inner
    white = view_of(defended, "white_box").logits(x).softmax(1)
    torch.testing.assert_close(white, view_of(defended, "scores").query(x))
    victim.module.normalise = inner  # without the hook the negative must be given by hand
    torch.testing.assert_close(view_of(defended, "scores").query(1 - x), white)


def test_views_narrow_and_count_once(stage, digits8):
    x = digits8.private.test.x[:7]
    ledger = Ledger()
    white = view_of(stage(), "white_box", ledger)
    scores = white.narrow()
    labels = scores.narrow()
    assert type(scores) is ScoresView and type(labels) is LabelsView
    assert torch.equal(labels.query(x), scores.query(x).argmax(1))
    assert ledger.queries == 14 and ledger.gradient_evals == 0
    white.logits(x.clone().requires_grad_(True))
    assert ledger.queries == 21 and ledger.gradient_evals == 7


def test_black_box_answers_carry_no_gradient(stage, digits8):
    x = digits8.private.test.x[:3].clone().requires_grad_(True)
    assert not view_of(stage(), "scores").query(x).requires_grad
    assert not any(answer.requires_grad for answer in view_of(stage(), "explanations").query(x))


def test_the_white_box_module_is_a_frozen_copy(stage):
    trained = stage()
    view = view_of(trained, "white_box")
    assert not any(parameter.requires_grad for parameter in view.model.parameters())
    with torch.no_grad():
        view.model.head.weight.zero_()
    assert float(trained[2].module.head.weight.detach().abs().sum()) > 0


@pytest.mark.parametrize("access", ["white_box", "scores", "labels", "explanations"])
def test_the_budget_holds_at_every_access(stage, digits8, access):
    view = view_of(stage(), access, Ledger(budget=10))
    ask = view.logits if access == "white_box" else view.query
    ask(digits8.private.test.x[:10])
    with pytest.raises(BudgetExhausted):
        ask(digits8.private.test.x[:1])


@pytest.mark.parametrize("access", ["scores", "labels", "explanations"])
def test_a_customer_is_refused_while_others_are_answered(stage, digits8, access):
    """What is refused is no query; utility is asked by others; a new observation is a new customer."""
    setting, scene, victim = stage(Guest(), epochs=0)
    x = digits8.private.test.x[:5]
    seen = setting.observe(scene, victim, digits8.private, access, 0, Ledger())
    seen.view.query(x)
    with pytest.raises(QueryRefused):
        seen.view.query(x)
    assert seen.view.ledger.queries == 5 and seen.customer.facts == {"queries_refused": 5}
    assert len(victim.predict_proba(digits8.private.test.x)) > 8
    again = setting.observe(scene, victim, digits8.private, access, 0, Ledger())
    again.view.query(x)
    assert again.view.ledger.queries == 5 and not again.customer.facts
