import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mibench.access import Ledger, ScoresView
from mibench.attacks.fredrikson_map import FredriksonMap
from mibench.data import Column, InputSpec
from mibench.errors import NotGrantedError, UserError
from mibench.knowledge import Knowledge
from mibench.tasks.attribute import AttributeGoal

NAN = float("nan")


def view_of(ask: Callable[[Tensor], Tensor], columns, classes=2, budget=None):
    spec = InputSpec("tabular", (len(columns),), classes, tuple(columns))
    return ScoresView(spec, Ledger(budget), torch.device("cpu"), ask)


def infer(attack, view, records, responses, choices, marginals, **facts):
    """Infers column 0 of the records; returns the base class's result."""
    records = records.clone()
    records[:, 0] = NAN
    knowledge = Knowledge(facts={"marginals": marginals, **facts})
    return attack(view, knowledge, AttributeGoal(records, responses, 0, choices), seed=0)


# The dose model: response = 5 - 1.5 s + 0.5 a - 0.3 b + N(0, 0.5), s of prior (0.4, 0.4, 0.2), fitted by least squares.

SCHEMA = (Column("s", ("0", "1", "2")), Column("a"), Column("b"))
BINS = torch.arange(-2.0, 10.01, 0.1)  # the classes are doses rounded to 0.1


def dose_case(uses_s=True):
    draw = torch.Generator().manual_seed(3)
    s = torch.multinomial(torch.tensor([0.4, 0.4, 0.2]), 2000, replacement=True, generator=draw).float()
    a, b, noise = torch.randn(3, 2000, generator=draw)
    dose = 5 - 1.5 * s + 0.5 * a - 0.3 * b + 0.5 * noise
    records = torch.stack([s, a, b], 1)
    design = torch.cat([records, torch.ones(2000, 1)], 1)
    weights = torch.linalg.lstsq(design, dose[:, None]).solution[:, 0]
    if not uses_s:
        weights[0] = 0
    sigma = (dose - design @ weights).std()

    def confidences(x: Tensor) -> Tensor:
        """The regression with its published residual deviation, as probabilities of the rounded doses."""
        predicted = x @ weights[:3] + weights[3]
        edges = torch.special.ndtr((BINS - predicted[:, None]) / sigma)
        return edges.diff(dim=1)

    marginals = [s.long().bincount().double() / 2000, torch.zeros(4), torch.zeros(4)]
    return view_of(confidences, SCHEMA, len(BINS) - 1), records, torch.bucketize(dose, BINS) - 1, marginals


def dose_accuracy(attack, uses_s=True):
    view, records, responses, marginals = dose_case(uses_s)
    result = infer(attack, view, records, responses, 3, marginals)
    return float((result.reconstruction.values == records[:, 0]).double().mean())


class PriorOnly(FredriksonMap):
    """A stub that does not look at the model."""

    def log_error(self, view, knowledge, records, responses):
        return torch.zeros(len(records)).double()


def test_infers_the_sensitive_value_from_the_dose():
    assert dose_accuracy(FredriksonMap()) > 0.85  # measured 0.90; the prior alone gives 0.41
    assert not dose_accuracy(PriorOnly()) > 0.85


def test_a_model_that_ignores_the_column_leaves_exactly_the_prior():
    class Overconfident(FredriksonMap):
        """A stub that takes what is left of the response for a trace of the sensitive value."""

        def log_error(self, view, knowledge, records, responses):
            return super().log_error(view, knowledge, records, responses) - 0.5 * records[:, 0]

    _, records, _, _ = dose_case()
    mode = float((records[:, 0] == 1).double().mean())
    assert mode == float(records[:, 0].long().bincount().max()) / 2000, "the mode is not the first code"
    assert dose_accuracy(FredriksonMap(), uses_s=False) == mode
    assert dose_accuracy(Overconfident(), uses_s=False) != mode


def test_every_value_of_every_record_is_queried_once_and_counted():
    view, records, responses, marginals = dose_case()
    infer(FredriksonMap(batch=100), view, records[:50], responses[:50], 3, marginals)
    assert view.ledger.queries == 150


def test_the_batch_size_changes_nothing():
    view, records, responses, marginals = dose_case()
    one, other = (
        infer(FredriksonMap(batch=size), view, records[:99], responses[:99], 3, marginals).reconstruction.values
        for size in (7, 8192)
    )
    assert torch.equal(one, other)


def test_a_spent_budget_leaves_the_unasked_records_missing():
    view, records, responses, marginals = dose_case()
    limited = ScoresView(view.spec, Ledger(30), view.device, view._ask)
    result = infer(FredriksonMap(batch=3), limited, records[:50], responses[:50], 3, marginals)
    assert result.stopped
    assert (~result.reconstruction.missing).tolist() == [True] * 10 + [False] * 40


# Two binary columns: s is sensitive, u is unknown as well. The probability of y=1 is given by a table over (s, u).

PAIR = (Column("s", ("0", "1")), Column("u", ("0", "1", "2")))
ONE_GIVEN_SU = torch.tensor([[0.9, 0.1, 0.1], [0.2, 0.6, 0.1]])


def pair_view():
    def ask(x: Tensor) -> Tensor:
        one = ONE_GIVEN_SU[x[:, 0].long(), x[:, 1].long()]
        return torch.stack([1 - one, one], 1)

    return view_of(ask, PAIR)


@pytest.mark.parametrize("frequencies", [(0.8, 0.1, 0.1), (0.1, 0.8, 0.1)])
def test_unknown_columns_are_summed_over_by_their_frequency(frequencies):
    """With u mostly 0 a response of 1 speaks for s=0, with u mostly 1 for s=1."""
    frequency = torch.tensor(frequencies).double()
    expected = int((ONE_GIVEN_SU.double() @ frequency).argmax())
    result = infer(
        FredriksonMap(max_completions=3),
        view := pair_view(),
        torch.tensor([[0.0, NAN]]),
        torch.tensor([1]),
        2,
        [torch.tensor([0.5, 0.5]), frequency],
    )
    assert result.reconstruction.values.tolist() == [expected]
    assert view.ledger.queries == 2 * 3


def test_a_known_column_is_not_summed_over():
    records = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, NAN]])
    marginals = [torch.tensor([0.5, 0.5]), torch.tensor([0.05, 0.9, 0.05])]
    result = infer(FredriksonMap(), pair_view(), records, torch.tensor([1, 1, 1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [0, 1, 1]


def test_unknown_numbers_take_the_published_midpoints():
    """y=1 if s=0 and u<2, or s=1 and u>2: three of the four equally likely midpoints lie above 2."""

    def ask(x: Tensor) -> Tensor:
        one = torch.where(x[:, 0] == 0, x[:, 1] < 2, x[:, 1] > 2).float()
        return torch.stack([1 - one, one], 1)

    view = view_of(ask, (PAIR[0], Column("u")))
    marginals = [torch.tensor([0.5, 0.5]), torch.tensor([1.0, 3.0, 4.0, 5.0])]
    result = infer(FredriksonMap(), view, torch.tensor([[0.0, NAN]] * 2), torch.tensor([0, 1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [0, 1]


@pytest.mark.parametrize("probability", [0.5, 0.0])
def test_ties_go_to_the_prior(probability):
    """A model whose answer is the same for all values, zero included, leaves the most frequent one."""
    view = view_of(lambda x: torch.full((len(x), 2), probability), PAIR)
    marginals = [torch.tensor([0.3, 0.7]), torch.ones(3) / 3]
    result = infer(FredriksonMap(), view, torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [1, 1, 1, 1]


def test_equal_scores_of_unequal_frequency_go_to_the_frequent_value():
    """0.2 * 0.75 = 0.6 * 0.25: the posterior is even, so the prior decides."""
    view = view_of(lambda x: torch.where(x[:, :1] == 0, torch.tensor([0.4, 0.6]), torch.tensor([0.8, 0.2])), PAIR)
    marginals = [torch.tensor([0.25, 0.75]), torch.ones(3) / 3]
    result = infer(FredriksonMap(), view, torch.zeros(1, 2), torch.tensor([1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [1]


def test_a_value_that_never_occurs_is_never_the_answer():
    view = view_of(lambda x: torch.where(x[:, :1] == 0, torch.tensor([0.0, 1.0]), torch.tensor([0.99, 0.01])), PAIR)
    marginals = [torch.tensor([0.0, 1.0]), torch.ones(3) / 3]
    result = infer(FredriksonMap(), view, torch.zeros(1, 2), torch.tensor([1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [1]


def test_the_confusion_matrix_replaces_the_confidence():
    """Confidences of 0.55 hardly move a prior of 0.7; a model known to be right in 95 % of cases does."""

    def ask(x: Tensor) -> Tensor:
        one = torch.where(x[:, 0] == 0, 0.55, 0.45)
        return torch.stack([1 - one, one], 1)

    confusion = torch.tensor([[0.95, 0.05], [0.05, 0.95]]).double()
    marginals = [torch.tensor([0.3, 0.7]), torch.ones(3) / 3]
    answers = [
        infer(
            FredriksonMap(error_model=model),
            view_of(ask, PAIR),
            torch.zeros(2, 2),
            torch.tensor([0, 1]),
            2,
            marginals,
            confusion=confusion,
        ).reconstruction.values.tolist()
        for model in ("confidence", "confusion")
    ]
    assert answers == [[1, 1], [1, 0]]


def test_the_confusion_matrix_is_read_by_true_class_then_by_answer():
    """Always answering 1 for s=1: a matrix whose true class 0 is often answered as 1, but not the other way round."""
    view = view_of(lambda x: torch.nn.functional.one_hot(x[:, 0].long(), 2).float(), PAIR)
    confusion = torch.tensor([[0.2, 0.8], [0.1, 0.9]]).double()
    marginals = [torch.tensor([0.6, 0.4]), torch.ones(3) / 3]
    result = infer(
        FredriksonMap(error_model="confusion"),
        view,
        torch.zeros(1, 2),
        torch.tensor([0]),
        2,
        marginals,
        confusion=confusion,
    )
    assert result.reconstruction.values.tolist() == [1], "0.6 * C[0, 0] = 0.12 < 0.4 * C[0, 1] = 0.32"


def test_facts_that_are_not_granted_are_refused_by_name():
    goal = AttributeGoal(torch.tensor([[NAN, 0.0]]), torch.tensor([1]), 0, 2)
    with pytest.raises(NotGrantedError, match=r"knowledge\.marginals=true"):
        FredriksonMap()(pair_view(), Knowledge(), goal, seed=0)
    knowledge = Knowledge(facts={"marginals": [torch.ones(2) / 2, torch.ones(3) / 3]})
    with pytest.raises(NotGrantedError, match=r"knowledge\.confusion=true"):
        FredriksonMap(error_model="confusion")(pair_view(), knowledge, goal, seed=0)


@pytest.mark.parametrize("options", [{"error_model": "gaussian"}, {"max_completions": 0}, {"batch": 0}])
def test_options_are_checked(options):
    with pytest.raises(UserError, match=next(iter(options))):
        FredriksonMap(**options)


def test_drawn_completions_approach_the_sum_over_all_of_them():
    """Twelve unknown binary columns, mostly 1; if s=1 then y=1 is likely where their mean is above 0.6.

    400 draws stand for 4096 completions; draws that ignore the marginals would average 0.5 and give the opposite.
    """
    columns = (PAIR[0], *(Column(f"u{i}", ("0", "1")) for i in range(12)))

    def ask(x: Tensor) -> Tensor:
        one = torch.sigmoid(2 * x[:, 0] * (x[:, 1:].mean(1) - 0.6))
        return torch.stack([1 - one, one], 1)

    records = torch.full((2, 13), NAN)
    marginals = [torch.tensor([0.5, 0.5]), *[torch.tensor([0.3, 0.7])] * 12]
    attack, view = FredriksonMap(max_completions=400), view_of(ask, columns)
    result = infer(attack, view, records, torch.tensor([0, 1]), 2, marginals)
    assert result.reconstruction.values.tolist() == [0, 1]
    assert view.ledger.queries == 2 * 2 * 400 < 2 * 2 * math.prod([2] * 12)
