import pytest
import torch

from mibench.access import (
    ExplanationsView,
    FeaturesView,
    GradientsView,
    LabelsView,
    Ledger,
    ScoresView,
    View,
    WhiteBoxView,
)
from mibench.data import Examples
from mibench.errors import BudgetExhausted, NotGrantedError, QueryRefused
from mibench.targets.lenet import LeNet
from mibench.training import is_correct


def images(digits8, n=4):
    return digits8.private.test.x[:n].clone()


def test_a_head_of_two_names_is_batched_like_any_other(digits8, client_view):
    class Twice(LeNet):
        def __init__(self, *, spec):
            super().__init__(spec=spec, channels=4)
            self.again = self.head

    view = client_view(Twice(spec=digits8.spec), digits8.private.test[torch.arange(2)], 2)
    x, y = torch.rand(3, 2, *digits8.spec.shape), torch.tensor([[0, 1], [2, 3], [4, 0]])
    together = view.gradients(x, y)
    for row in range(3):  # and the model is as it was
        for name, value in view.gradient(x[row], y[row]).items():
            torch.testing.assert_close(together[name][row], value)


def test_every_path_through_a_white_box_is_counted(trained_cnn, digits8, white_box):
    view = white_box(trained_cnn, digits8)
    x = images(digits8)
    view.logits(x)
    view.model.features(x)
    view.model.blocks(x)
    assert (view.ledger.queries, view.ledger.gradient_evals) == (12, 0)
    with view.phase("select"):
        view.logits(x.requires_grad_(True))
    assert view.ledger.state()["gradients"] == {"prepare": 0, "initialise": 0, "optimise": 0, "select": 4}


def test_whoever_asks_several_times_averages_what_a_random_service_answers(digits8):
    draws, asked = torch.Generator().manual_seed(0), []
    even = torch.full((digits8.spec.classes,), 1 / digits8.spec.classes)

    def ask(x):
        asked.append(x)
        answers = even + 0.1 * torch.randn(len(x), digits8.spec.classes, generator=draws)
        answers[:, 2] += 0.1
        return answers

    def view(repeats):
        return ScoresView(digits8.spec, Ledger(), torch.device("cpu"), ask, repeats)

    x = images(digits8, 20)
    expected = even + 0.1 * (torch.arange(digits8.spec.classes) == 2)
    once, often = view(1), view(64)
    error = (once.query(x) - expected).std()
    assert torch.equal(asked[-1], x) and once.ledger.queries == 20
    assert (often.query(x) - expected).std() < 0.2 * error and often.ledger.queries == 20 * 64
    assert len({one.numpy().tobytes() for one in asked[-64:]}) == 64  # near-duplicates, none the same
    assert max(float((one - x).abs().max()) for one in asked[-64:]) <= 1e-3
    assert (often.narrow().query(x) == 2).double().mean() > 0.95 > (once.narrow().query(x) == 2).double().mean()


def test_explanations_are_asked_for_as_often_as_scores(digits8):
    asked = []

    def explain(x):
        asked.append(x)
        scores = torch.full((len(x), digits8.spec.classes), float(len(asked)), requires_grad=True)
        return scores, len(asked) * x

    view = ExplanationsView(digits8.spec, Ledger(), torch.device("cpu"), None, 4, _explain=explain)
    x = images(digits8, 5)
    scores, saliency = view.query(x)
    assert scores.unique().tolist() == [2.5] and not scores.requires_grad, "the mean of four answers"
    torch.testing.assert_close(saliency, sum(n * one for n, one in enumerate(asked, 1)) / 4)
    assert view.ledger.queries == 20 and torch.equal(asked[0], x)
    assert len({one.numpy().tobytes() for one in asked}) == 4, "near-duplicates, none the same"


def test_of_repeated_queries_the_answered_ones_are_counted(digits8):
    answered = []

    def ask(x):
        if len(answered) == 3:
            raise QueryRefused("No more.")
        answered.append(x)
        return torch.full((len(x), digits8.spec.classes), 1 / digits8.spec.classes)

    view = ScoresView(digits8.spec, Ledger(), torch.device("cpu"), ask, 8)
    with pytest.raises(QueryRefused):
        view.query(images(digits8))
    assert view.ledger.queries == 3 * 4


def test_a_view_is_a_frozen_copy(trained_cnn, digits8, white_box):
    view = white_box(trained_cnn, digits8)
    assert not any(p.requires_grad for p in view.model.parameters()) and not view.model.training
    next(view.model.parameters()).zero_()
    assert next(trained_cnn.parameters()).abs().sum() > 0
    with pytest.raises(AttributeError):
        view.model = trained_cnn  # type: ignore[misc]


def test_stronger_views_narrow_on_the_same_account_and_never_widen(trained_cnn, digits8, white_box):
    view = white_box(trained_cnn, digits8)
    scores = view.narrow()
    labels = scores.narrow()
    x = images(digits8)
    probabilities = scores.query(x)
    assert torch.allclose(probabilities.sum(1), torch.ones(4), atol=1e-5)
    assert torch.equal(labels.query(x), probabilities.argmax(1))
    assert view.ledger.queries == 8
    assert not hasattr(scores, "model") and not hasattr(labels, "model") and not hasattr(labels, "narrow")


def test_who_sees_labels_sees_that_the_service_abstains(digits8):
    """One row of zeros is no class, and never counts as right."""
    answer = torch.tensor([[0.0, 1, 0, 0, 0], [0.0] * 5])
    view = ScoresView(digits8.spec, Ledger(), torch.device("cpu"), lambda x: answer)
    assert view.narrow().query(images(digits8)[:2]).tolist() == [1, -1]
    asked = Examples(images(digits8)[:2], torch.tensor([1, 0]))
    assert is_correct(lambda x: answer, asked).tolist() == [True, False]


def test_scores_carry_no_gradient(trained_cnn, digits8):
    def ask(x):
        return trained_cnn(x).softmax(1)

    view = ScoresView(digits8.spec, Ledger(), torch.device("cpu"), ask)
    assert not view.query(images(digits8).requires_grad_(True)).requires_grad


def test_a_spent_budget_stops_before_the_query_is_made(trained_cnn, digits8):
    asked = []

    def ask(x):
        asked.append(len(x))
        return trained_cnn(x).softmax(1)

    view = LabelsView(digits8.spec, Ledger(budget=5), torch.device("cpu"), ask)
    view.query(images(digits8))
    with pytest.raises(BudgetExhausted) as refusal:
        view.query(images(digits8))
    assert isinstance(refusal.value, QueryRefused) and asked == [4] and view.ledger.queries == 4


def test_a_replayed_ledger_costs_what_the_cold_one_did():
    cold, warm = Ledger(), Ledger()
    cold.charge(7, gradient=True)
    warm.replay(cold.state())
    assert warm.state() == cold.state()


def test_the_gradients_view_gives_the_clients_gradient(trained_cnn, digits8, client_view):
    view = client_view(trained_cnn, digits8.private.test[torch.arange(2)], 2)
    x, y = images(digits8, 2), digits8.private.test.y[:2]
    loss = torch.nn.functional.cross_entropy(trained_cnn(x), y)
    expected = torch.autograd.grad(loss, list(trained_cnn.parameters()))
    found = view.gradient(x.requires_grad_(True), y)
    assert list(found) == [name for name, _ in trained_cnn.named_parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.values(), expected, strict=True))
    assert view.ledger.gradient_evals == 2
    (second,) = torch.autograd.grad(sum(g.square().sum() for g in found.values()), x)
    assert second.abs().sum() > 0
    assert all(p.grad is None for p in view.model.parameters())


def test_what_hooks_read_comes_with_the_gradients_of_every_client_in_one_pass(trained_cnn, digits8, client_view):
    view = client_view(trained_cnn, digits8.private.test[torch.arange(2)], 2)
    x = images(digits8, 6).reshape(3, 2, 1, 8, 8).requires_grad_(True)
    y = digits8.private.test.y[:6].reshape(3, 2)
    seen = []
    view.model.stages[1].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    gradients, (read,) = view.gradients_and(x, y, lambda: seen[-1:])
    assert view.ledger.queries == view.ledger.gradient_evals == 6
    for number in range(3):
        alone, (own,) = view.gradients_and(x[number : number + 1], y[number : number + 1], lambda: seen[-1:])
        torch.testing.assert_close(read[number], own[0])
        assert all(torch.allclose(gradients[name][number], alone[name][0], atol=1e-6) for name in alone)
    (reached,) = torch.autograd.grad(read[1].sum(), x)
    assert reached[1].abs().sum() > 0
    assert reached[0].abs().sum() == reached[2].abs().sum() == 0


def test_the_encoder_of_a_split_client_answers_only_where_granted(digits8):
    view = FeaturesView(digits8.spec, Ledger(), torch.device("cpu"), torch.zeros(1, 3))
    with pytest.raises(NotGrantedError, match=r"knowledge\.encoder"):
        view.query(torch.zeros(1, 1, 8, 8))


def test_no_view_holds_private_data():
    for view in (View, WhiteBoxView, ScoresView, LabelsView, GradientsView, FeaturesView):
        assert not {"split", "private", "truth", "evaluators"} & set(view.__dataclass_fields__)
