"""What becomes of a saliency map behind the defenses of a service that say they affect explanations."""

from types import SimpleNamespace

import pytest
import torch

from mibench.access import Ledger
from mibench.defenses.base import Defense
from mibench.defenses.label_only_output import LabelOnlyOutput
from mibench.defenses.rounding import Rounding
from mibench.defenses.score_noise import ScoreNoise
from mibench.defenses.top_k import TopK
from mibench.settings.central import Central
from mibench.settings.victim import Victim

DEFENSES = {
    "rounding": Rounding(step=0.2),
    "top_k": TopK(k=2),
    "score_noise": ScoreNoise(rule="gaussian", epsilon=0.5),
    "label_only_output": LabelOnlyOutput(),
}


@pytest.fixture
def explained(trained_cnn, digits8):
    """Returns scores and saliency maps of ten digits behind a defense."""

    def explain(defense):
        spec = trained_cnn.spec
        victim = Victim(trained_cnn, defense, spec, {"seed": 0})
        scene = SimpleNamespace(workshop=SimpleNamespace(device=torch.device("cpu")))
        observed = Central().observe(scene, victim, None, "explanations", 0, Ledger())
        assert observed.view.known() == ("explanation:gradient",)
        return observed.view.query(digits8.private.test.x[:10]), observed.view.ledger.state()

    return explain


@pytest.mark.parametrize("name", DEFENSES)
def test_scores_and_maps_change_together(explained, name):
    (plain, saliency), cost = explained(Defense())
    (scores, shown), _ = explained(DEFENSES[name])
    assert saliency.shape == (10, 1, 8, 8) and (saliency > 0).any()
    assert not torch.equal(scores, plain) and not torch.equal(shown, saliency)
    assert sum(cost["queries"].values()) == 10


def test_what_is_left_of_a_map(explained):
    (_, saliency), _ = explained(Defense())
    flat = {name: explained(defense)[0][1].flatten(1) for name, defense in DEFENSES.items()}
    largest = saliency.flatten(1).amax(1, keepdim=True)
    steps = flat["rounding"] / largest / 0.2
    torch.testing.assert_close(steps, steps.round())
    assert bool(((flat["rounding"] - saliency.flatten(1)).abs() <= 0.1 * largest + 1e-6).all())
    kept = flat["top_k"] != 0
    assert kept.sum(1).tolist() == [26] * 10  # two of five classes: 2/5 of 64 entries
    assert bool((flat["top_k"][kept] == saliency.flatten(1)[kept]).all())
    assert bool((saliency.flatten(1).masked_fill(kept, 0).amax(1) <= flat["top_k"].masked_fill(~kept, 9).amin(1)).all())
    moved = (flat["score_noise"] - saliency.flatten(1)).abs().sum(1) / saliency.flatten(1).sum(1)
    torch.testing.assert_close(moved, torch.full((10,), 0.5))
    assert not flat["label_only_output"].any()


def test_the_largest_entries_of_a_map_are_those_of_the_largest_size():
    saliency, scores = torch.tensor([[0.1, -3.0, 2.0, 0.5]]), torch.tensor([[0.6, 0.4]])
    assert TopK(k=1).explain(saliency, saliency, scores, None).tolist() == [[0, -3, 2, 0]]


def test_neutral_values_leave_a_map_as_it_is(explained):
    (_, saliency), _ = explained(Defense())
    for neutral in (Rounding(step=0), TopK(k=99), ScoreNoise(rule="gaussian", epsilon=0)):
        torch.testing.assert_close(explained(neutral)[0][1], saliency)
