import pytest
import torch

from mibench.data import Examples
from mibench.errors import UserError
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, Training, cross_entropy, is_correct


def training(digits8, recipe, seed=0, label="training"):
    torch.manual_seed(0)
    return Training(
        Cnn(spec=digits8.spec, width=4), digits8.private.train, recipe, seed, torch.device("cpu"), label=label
    )


def test_a_victim_learns(trained_cnn, digits8):
    assert is_correct(trained_cnn.predict_proba, digits8.private.test).float().mean() > 0.95


def test_the_same_seed_gives_the_same_weights(digits8):
    recipe = Recipe(epochs=1)
    one, two, three = (training(digits8, recipe, seed).run() for seed in (0, 0, 1))
    assert torch.equal(one.head.weight, two.head.weight) and not torch.equal(one.head.weight, three.head.weight)


def test_small_data_are_passed_over_until_the_least_steps_are_taken(digits8):
    few = Examples(digits8.private.train.x[:50], digits8.private.train.y[:50])
    plan = Training(Cnn(spec=digits8.spec), few, Recipe(epochs=2, batch_size=64, min_steps=7), 0, torch.device("cpu"))
    assert len(list(plan.batches())) == 7
    assert all(len(batch) == 50 for batch in plan.batches())
    large = training(digits8, Recipe(epochs=2, batch_size=64, min_steps=7))
    assert len(list(large.batches())) == 2 * (len(digits8.private.train) // 64)


def test_a_part_may_learn_at_a_rate_of_its_own(digits8):
    """At a rate of 0 it stays as it was, at a rate of 1 the training is the plain one to the bit."""
    recipe = Recipe(epochs=1)
    plain, fresh = training(digits8, recipe).run(), training(digits8, recipe).model
    for rate, expected in ((0.0, fresh), (1.0, plain)):
        plan = training(digits8, recipe)
        learned = plan.run(rates={plan.model.stages[0]: rate})
        assert torch.equal(learned.stages[0][0].weight, expected.stages[0][0].weight)
        assert torch.equal(learned.head.weight, plain.head.weight) == (rate == 1.0)


def test_a_batch_knows_how_much_of_the_training_lies_behind_it(digits8):
    seen = []

    def loss(batch):
        seen.append(batch.progress)
        return cross_entropy(batch)

    plan = training(digits8, Recipe(epochs=2, batch_size=64))
    plan.run(loss)
    steps = 2 * plan.steps_per_epoch
    assert seen == [step / steps for step in range(steps)]


def test_bfloat16_trains_too(digits8):
    plan = training(digits8, Recipe(epochs=2, lr=5e-3))
    plan.precision = "bfloat16"
    model = plan.run()
    assert model.head.weight.dtype == torch.float32
    assert is_correct(model.predict_proba, digits8.private.test).float().mean() > 0.5


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"batch_size": 0}, {"optimizer": "adamw2"}, {"schedule": "steps"}])
def test_a_wrong_recipe_is_refused(wrong):
    with pytest.raises(UserError, match=r"target\.recipe"):
        Recipe(**wrong)


def test_a_recipe_that_flips_mirrors_every_image_half_of_the_time(digits8):
    """Each image of each pass by itself, the same ones for the same seed; without it the very images are learned."""
    x = torch.arange(400.0).reshape(200, 1, 1, 2)
    data = Examples(x, torch.arange(200))

    def batches(seed=0, **options):
        training = Training(None, data, Recipe(epochs=2, batch_size=200, **options), seed, torch.device("cpu"))
        return [(one.x[:, 0, 0, 0] != x[one.y, 0, 0, 0]) for one in training.batches()]

    assert not any(bool(one.any()) for one in batches())
    first, second = batches(flip=True)
    assert 0.4 < float(first.double().mean()) < 0.6 and not torch.equal(first, second)
    assert all(torch.equal(one, other) for one, other in zip(batches(flip=True), (first, second), strict=True))
    assert not torch.equal(batches(1, flip=True)[0], first)
    (mirrored,) = Training(None, data, Recipe(epochs=1, batch_size=200, flip=True), 0, torch.device("cpu")).batches()
    assert torch.equal(mirrored.x.sort(3).values, x[mirrored.y]), "nothing else of an image is changed"
    with pytest.raises(UserError, match=r"target\.recipe\.flip"):
        Recipe(flip=True).views(torch.zeros(3, 5), torch.Generator())


def test_the_passes_are_those_of_the_training_whose_batches_are_its_own(digits8):
    """A training that draws its batches in another way has other steps to a pass, and ``min_steps`` counts these."""

    class Poisson(Training):
        steps_per_epoch = 10

    recipe = Recipe(epochs=2, batch_size=64, min_steps=35)
    few = digits8.private.train[:130]
    assert Poisson(Cnn(spec=digits8.spec), few, recipe, 0, torch.device("cpu")).epochs == 4
    assert Training(Cnn(spec=digits8.spec), few, recipe, 0, torch.device("cpu")).epochs == 18
