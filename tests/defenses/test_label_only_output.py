from dataclasses import replace

import pytest
import torch

from mibench.access import Ledger, ScoresView
from mibench.defenses.base import Defense
from mibench.defenses.label_only_output import LabelOnlyOutput
from mibench.errors import UserError
from mibench.planning.cards import vary
from mibench.planning.compatibility import compatible
from mibench.planning.composition import build, compose, plain
from mibench.planning.plan import plan_cell
from mibench.settings.victim import Victim
from mibench.training import is_correct


@pytest.fixture
def victim(trained_cnn, digits8):
    """The trained CNN behind a defense: ``victim(defense)``."""
    return lambda defense: Victim(trained_cnn, defense, digits8.spec, {})


def test_there_are_no_more_answers_than_classes(victim, digits8):
    """Five distinct answers, six with a threshold; the stub is the undefended scores, of which over 200 differ."""
    x = torch.cat([digits8.private.test.x, digits8.public.x[:200]])
    scores = victim(Defense()).predict_proba(x)
    answer = victim(LabelOnlyOutput()).predict_proba(x)
    assert len(answer.unique(dim=0)) == 5 and torch.equal(answer.argmax(1), scores.argmax(1))
    assert len(victim(LabelOnlyOutput(threshold=0.9)).predict_proba(x).unique(dim=0)) == 6
    assert len(scores.unique(dim=0)) > 200, "scores told far more"


def test_who_sees_labels_sees_what_he_saw_before(victim, digits8):
    """Also where the view was narrowed; only a threshold takes something from him."""
    x = torch.cat([digits8.private.test.x, digits8.public.x[:200]])

    def labels(defense):
        view = ScoresView(digits8.spec, Ledger(), torch.device("cpu"), victim(defense).predict_proba)
        return view.narrow().query(x)

    plainly, careful = labels(Defense()), labels(LabelOnlyOutput(threshold=0.9))
    assert torch.equal(labels(LabelOnlyOutput()), plainly)
    said = victim(Defense()).predict_proba(x).amax(1) >= 0.9
    assert torch.equal(careful, plainly.where(said, -1)) and 0 < int((careful == -1).sum()) < len(x)


def test_abstention_costs_utility(victim, digits8):
    test = digits8.private.test
    right = is_correct(victim(LabelOnlyOutput()).predict_proba, test)
    assert torch.equal(right, is_correct(victim(Defense()).predict_proba, test))
    never = is_correct(victim(LabelOnlyOutput(threshold=1.0)).predict_proba, test)
    assert int(never.sum()) < int(right.sum()) and not bool((never & ~right).any())


def test_ties_go_to_the_first_class():
    assert LabelOnlyOutput().output(torch.full((1, 4), 0.25)).tolist() == [[1.0, 0, 0, 0]]


def test_attacks_on_scores_are_refused_in_one_sentence():
    cards = plan_cell(compose(["attack=nearest_public", "defense=label_only_output"])).cards
    reason = compatible(cards)
    assert reason.startswith("Incompatible: defense 'label_only_output' withholds scores, explanations")
    assert reason.endswith("take an attack that works with access labels.") and reason.count(". ") == 0
    silent = vary(cards.defense, withholds=())
    assert not compatible(replace(cards, defense=silent)), "without it the attack would run on one-hot vectors"


def test_a_wrong_option_is_said_in_one_sentence():
    block = plain(compose(["defense=label_only_output"]).defense)
    with pytest.raises(UserError, match=r"defense\.threshold.*from 0 to 1"):
        build({**block, "threshold": 2.0})
