from types import SimpleNamespace

import pytest
import torch
from scipy.stats import laplace, norm

from mibench.defenses.score_noise import ScoreNoise
from mibench.errors import UserError
from mibench.nn.scores import LEAST

RULES = ["adversarial", "laplace", "gaussian"]


@pytest.fixture(scope="module")
def answers(trained_cnn, digits8, learned):
    """Test digits, what the model answers to them, and defenses that have learned: ``made(rule, ...)``."""
    x = digits8.private.test.x

    def made(rule, **options):
        return learned(ScoreNoise(rule=rule, iterations=300, **options))

    return x, trained_cnn.predict_proba(x), made


def faults(answer, scores, epsilon):
    """What of the definition an answer breaks."""
    found = {
        "label": not torch.equal(answer.argmax(1), scores.argmax(1)),
        "far": bool(((answer - scores).abs().sum(1) > epsilon + 1e-5).any()),
        "simplex": bool((answer < 0).any()) or not torch.allclose(answer.sum(1), torch.ones(len(answer)), atol=1e-5),
        "idle": float((answer - scores).abs().sum(1).mean()) < 1e-3,
    }
    return {fault for fault, there in found.items() if there}


def test_the_laplace_rule_has_the_stated_scale(monkeypatch):
    """Sorted into the order of the scores and divided by the sum: Lap(2 / epsilon) at normals' quantiles."""
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    normal = torch.tensor([[0.3, -0.2, 1.0], [-1.5, 0.1, 0.4]])
    monkeypatch.setattr(ScoreNoise, "normal", lambda self, x, probabilities: normal)
    noise = torch.from_numpy(laplace.ppf(norm.cdf(normal.double()), scale=2 / 3.0))
    ranked = (scores + noise).clamp_min(LEAST).sort(1).values
    expected = torch.stack([row[one.argsort().argsort()] for row, one in zip(ranked, scores, strict=True)])
    found = ScoreNoise(rule="laplace", budget=3.0).ordered(torch.zeros(2, 1), scores)
    torch.testing.assert_close(found, (expected / expected.sum(1, keepdim=True)).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
@pytest.mark.parametrize("rule", RULES)
def test_answers_are_moved_a_bounded_amount_and_keep_the_label(answers, rule, epsilon):
    x, scores, made = answers
    assert not faults(made(rule, epsilon=epsilon, sigma=0.5, step_size=0.1).answer(x, scores, None), scores, epsilon)


def test_a_stub_that_only_adds_noise_is_found(answers):
    _, scores, _ = answers
    noisy = scores + 0.5 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
    assert faults(noisy, scores, 0.1) == {"label", "far", "simplex"}


def test_scores_step_along_the_sign_of_the_surrogates_slope():
    """Twice by 0.1, clipped at 0 and divided by the sum each time: 0.6, 0, 0.5 and then 0.645, 0, 0.555, over 1.1."""
    defense = ScoreNoise(steps=2, step_size=0.1)
    slope = torch.tensor([3.0, -1.0, 0.5])
    defense.surrogate, defense.standard = SimpleNamespace(errors=lambda q, wanted: (q * slope).sum(1)), lambda x: x
    found = defense.misleading(torch.zeros(1, 1), torch.tensor([[0.5, 0.1, 0.4]]))
    second = torch.tensor([[0.6 / 1.1 + 0.1, 0.0, 0.5 / 1.1 + 0.1]])
    torch.testing.assert_close(found, second / second.sum())


def test_the_surrogate_is_misled(answers):
    """Measured: its error rises on all test digits, to 6.7 times; of a stub that steps the other way to 2.1 times.

    The stub's rises too, because clipping at 0 alone sends logs far away.
    """
    x, scores, made = answers
    defense, stub = made("adversarial"), made("adversarial")
    stub.step_size = -stub.step_size
    wanted = defense.standard(x)
    assert defense.surrogate.errors(scores, wanted).mean() < 0.85 * wanted.square().mean(), "it has learned"

    def errors(answer):
        return defense.surrogate.errors(answer, wanted)

    moved = errors(defense.answer(x, scores, None))
    assert float((moved > errors(scores)).double().mean()) >= 0.9
    assert moved.mean() >= 4 * errors(scores).mean() > errors(stub.answer(x, scores, None)).mean()


def test_the_order_of_the_scores_is_kept_by_the_laplace_rule(answers):
    x, scores, made = answers
    moved = made("laplace").answer(x, scores, None)
    ranked = moved.gather(1, scores.argsort(dim=1, stable=True))
    assert bool((ranked.diff(dim=1) >= -1e-7).all())
    shaken = made("gaussian", sigma=0.5).answer(x, scores, None).gather(1, scores.argsort(dim=1, stable=True))
    assert not bool((shaken.diff(dim=1) >= -1e-7).all())


@pytest.mark.parametrize("rule", ["laplace", "gaussian"])
def test_asking_again_gains_nothing_and_a_near_duplicate_gets_other_noise(answers, rule):
    x, scores, made = answers
    first = made(rule).answer(x, scores, None)
    assert torch.equal(made(rule).answer(x[5:9], scores[5:9], None), first[5:9])
    assert not torch.equal(made(rule).answer(x + 1e-6, scores, None), first)
    assert not torch.equal(made(rule, secret=1).answer(x, scores, None), first)


@pytest.mark.parametrize("rule", RULES)
def test_epsilon_zero_is_the_identity(answers, rule):
    x, scores, made = answers
    assert made(rule, epsilon=0.0).answer(x, scores, None) is scores


def test_the_surrogate_comes_back_from_its_state(answers):
    x, scores, made = answers
    trained, restored = made("adversarial"), ScoreNoise()
    restored.restore(trained.state())
    assert torch.equal(restored.answer(x, scores, None), trained.answer(x, scores, None))


def test_wrong_options_are_said_in_one_sentence():
    for options, said in (({"rule": "cauchy"}, r"defense\.rule"), ({"epsilon": -1.0}, r"defense\.epsilon")):
        with pytest.raises(UserError, match=said):
            ScoreNoise(**options)
