import pytest
import torch
from exact import inside

from mibench.defenses.base import DefenderData, DefenseContext
from mibench.defenses.purifier import Purifier
from mibench.defenses.temperature import Temperature
from mibench.errors import UserError
from mibench.nn.scores import ScoreInverse, Standard
from mibench.seeding import seeded

#: A stub: other numbers, and nothing hidden.
FLATTER = Temperature(temperature=2.0)


@pytest.fixture(scope="module")
def purified(learned):
    return learned(Purifier(iterations=500))


def spread(scores, labels):
    """Mean variance of score vectors around their class's mean."""
    return float(torch.stack([scores[labels == one].var(0, correction=0).sum() for one in labels.unique()]).mean())


@pytest.fixture(scope="module")
def inversion_error(trained_cnn, digits8):
    """The test error of a fresh inversion network, trained on a service's answers: ``inversion_error(serve)``."""
    train, test = digits8.private.train, digits8.private.test
    standard = Standard.of(train.x)
    inputs, seen = standard(train.x), trained_cnn.predict_proba(train.x)

    def measure(serve):
        answers, unseen = serve(seen), serve(trained_cnn.predict_proba(test.x))
        errors = []
        with seeded(7):
            inverse = ScoreInverse(5, 64, hidden=128)
            optimizer = torch.optim.Adam(inverse.parameters(), 1e-3)
            for step in range(800):
                rows = torch.randint(len(train), (64,))
                optimizer.zero_grad()
                inverse.errors(answers[rows], inputs[rows]).mean().backward()
                optimizer.step()
                if step % 100 == 99:
                    with torch.no_grad():
                        errors.append(float(inverse.errors(unseen, standard(test.x)).mean()))
        return min(errors)

    return measure


class Reader:
    """A stub of the inversion network: the error of every answer is its first entry."""

    def errors(self, answers, wanted):
        return answers[:, 0] + 0 * wanted.sum(1)


def test_the_losses_are_those_of_the_docstring():
    """Distance, label and inversion with their weights and signs, against numbers worked out by hand."""
    purified = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], requires_grad=True)
    scores, labels = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]), torch.tensor([0, 1])
    defense = Purifier(label_weight=0.3, inversion_weight=2.0)
    own, inverse = defense.losses(purified, scores, labels, Reader(), torch.zeros(2, 4))
    distance = ((0.04 + 0.0025 + 0.0225) + (0.01 + 0.01 + 0.0)) / 2
    label = -(torch.tensor(0.5).log() + torch.tensor(0.8).log()) / 2
    torch.testing.assert_close(own, distance + 0.3 * label - 2.0 * torch.tensor(0.3))
    torch.testing.assert_close(inverse, torch.tensor(0.3))
    assert not inverse.requires_grad, "the inversion network's loss does not move the autoencoder"


def test_answers_of_one_class_look_alike_and_keep_the_label(trained_cnn, digits8, purified):
    """Measured on test digits: all labels stay, and 4.4 % of the variance; of a flatter softmax, the stub, 4.1 times.

    An autoencoder asked for reconstruction alone leaves 15 %: it is the narrowing that the authors begin with.
    """
    scores = trained_cnn.predict_proba(digits8.private.test.x)
    labels = scores.argmax(1)

    def left(defense):
        return spread(defense.output(scores), labels) / spread(scores, labels)

    answer = purified.output(scores)
    assert torch.allclose(answer.sum(1), torch.ones(len(answer))) and bool((answer >= 0).all())
    assert float((answer.argmax(1) == labels).double().mean()) >= 0.995
    assert left(purified) <= 0.5 < left(FLATTER)


def test_a_fresh_inversion_network_brings_back_less(inversion_error, purified):
    """The card proposes a fifth more; here naming the mean of the right class is 1.18 times the undefended error.

    Measured: 1.17 times (also by reconstruction alone); after a flatter softmax 1.06 times.
    """
    raw = inversion_error(lambda scores: scores)
    assert inversion_error(purified.output) >= 1.1 * raw > inversion_error(FLATTER.output)


def test_what_it_learned_comes_back_from_its_state(trained_cnn, digits8, purified):
    scores = trained_cnn.predict_proba(digits8.private.test.x)
    again = Purifier()
    assert again.output(scores) is scores and not again.state()
    again.restore({})
    again.restore(purified.state())
    assert torch.equal(again.output(scores), purified.output(scores))
    assert set(purified.facts()) == {"label_agreement", "score_inversion"}
    assert purified.facts()["label_agreement"] >= 0.99 and purified.facts()["score_inversion"] > 0.7


def test_it_keeps_back_a_reserve():
    assert Purifier(reserve=0.3).reserve_share == 0.3
    for options, said in (({"reserve": 1.0}, r"defense\.reserve"), ({"iterations": 0}, r"defense\.iterations")):
        with pytest.raises(UserError, match=said):
            Purifier(**options)


@pytest.mark.parametrize(("examples", "seen"), [(12, 10), (11, 9), (1, 1)])
def test_a_reserve_too_small_to_learn_from_is_refused(trained_cnn, digits8, examples, seen):
    """Of five classes: ten examples to train on, beside two held out, are the least."""
    train = digits8.private.train
    context = DefenseContext(
        digits8.spec, DefenderData(train, train[torch.arange(examples)], None), 0, torch.device("cpu")
    )
    defense = Purifier(iterations=1)
    if seen >= 10:
        asked = inside(Purifier, "measured", lambda: defense.learn(trained_cnn, context), lambda *given: given[-1])
        assert len(asked) == examples - seen and defense.network is not None, "it is tried on what was held out"
    else:
        with pytest.raises(UserError, match=rf"{seen} examples are too few for 5 classes; raise defense\.reserve"):
            defense.learn(trained_cnn, context)
