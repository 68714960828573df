"""Scenes in which settings train and observe."""

from collections.abc import Callable

import pytest

from mibench.data import Split
from mibench.defenses.base import Defense
from mibench.model import Classifier
from mibench.settings.base import Scene
from mibench.settings.victim import Blueprint
from mibench.storage.workshop import Workshop
from mibench.targets.lenet import LeNet
from mibench.training import Recipe


@pytest.fixture
def make_scene(digits8: Split, workshop: Workshop) -> Callable[..., Scene]:
    """Makes a scene on the digits from a class of targets, a defense and a seed: ``make_scene(Mlp, Bido())``."""

    def make(target: type[Classifier] = LeNet, defense: Defense | None = None, seed: int = 0) -> Scene:
        blueprint = Blueprint(target.__name__, lambda spec: target(spec=spec), Recipe(), {"target": target.__name__})
        defense = defense or Defense()
        key = {"defense": type(defense).__name__}
        return Scene(split=digits8, blueprint=blueprint, defense=defense, defense_key=key, workshop=workshop, seed=seed)

    return make
