"""Setting ``central``: one owner trains the target on all private data; the attacker meets the finished model.

For the task ``instance`` it also sees the answers that others got: each for one private training input, from a customer
of its own, after the defense (Yang et al., CCS 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.access import ExplanationsView, LabelsView, Ledger, NoView, ScoresView, WhiteBoxView
from mibench.card import SettingCard
from mibench.data import Examples, Population
from mibench.defenses.base import Customer
from mibench.errors import IncompatibleCellError, UserError
from mibench.seeding import derive, generator, seeded
from mibench.settings.base import Observation, Scene, Setting
from mibench.settings.victim import Victim


class Central(Setting):
    """Centralised training, and serving at any access level but gradients and features."""

    card = SettingCard(
        name="central",
        title="Centralised training",
        modalities=("image", "text", "tabular", "audio", "graph"),
        access=("white_box", "scores", "labels", "explanations", "none"),
    )

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the victim, from the store where it is there."""
        key = {"role": "victim", "setting": self.card.name, "defense": dict(scene.defense_key)}
        return scene.train(population, key, label)

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return the view of the finished model, at access ``scores`` with ``count`` observed answers.

        Raises:
            UserError: If there are fewer private training examples than answers to observe.
        """
        device, customer = scene.workshop.device, Customer()

        def ask(x: Tensor) -> Tensor:
            return victim.answer(x, customer)

        if access == "none":
            return Observation(NoView(victim.spec, ledger, device))
        if access == "white_box":
            return Observation(WhiteBoxView.of(victim.module, victim.spec, ledger, device))
        if access == "scores":
            observed, secret = observed_answers(scene, victim, population, count) if count else (None, None)
            view = ScoresView(victim.spec, ledger, device, ask, observed=observed)
            return Observation(view, secret, customer=customer)
        if access == "labels":
            return Observation(LabelsView(victim.spec, ledger, device, ask), customer=customer)
        if access == "explanations":

            def explain(x: Tensor) -> tuple[Tensor, Tensor]:
                answers = ask(x)
                return answers, victim.defense.explain(_saliency(victim, x), x, answers, customer)

            return Observation(ExplanationsView(victim.spec, ledger, device, ask, _explain=explain), customer=customer)
        raise UserError(f"Setting 'central' does not offer access '{access}'.")


def observed_answers(scene: Scene, victim: Victim, population: Population, count: int) -> tuple[Tensor, Examples]:
    """Return what the service answers to ``count`` private training inputs, ``(count, classes)``, and the inputs.

    Each is asked by another customer.

    Raises:
        UserError: If there are fewer.
    """
    train = population.train
    if count > len(train):
        raise UserError(
            f"{count} observed answers need as many private training examples, but there are {len(train)}; lower "
            "budget.targets."
        )
    draws = generator(derive(scene.seed, "observed"))
    secret = train[torch.randperm(len(train), generator=draws)[:count]]
    with seeded(derive(scene.seed, "observed answers")), torch.no_grad():
        answers = [victim.answer(x.to(scene.workshop.device), Customer()) for x in secret.x.split(1)]
    return torch.cat(answers), secret


def _saliency(victim: Victim, x: Tensor) -> Tensor:
    """Return the input-gradient saliency of the top class (Simonyan et al., 2014).

    Raises:
        IncompatibleCellError: If the model has no gradient by its inputs, as of token ids and categories.
    """
    module, gradient = victim.module, None
    if x.is_floating_point():
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            top = module(x).max(1).values.sum()
            if top.requires_grad:
                (gradient,) = torch.autograd.grad(top, x, allow_unused=True)
    if gradient is None:
        raise IncompatibleCellError(
            "Incompatible: access 'explanations' answers with saliency maps, and the model has no gradient by these "
            "inputs (ids of tokens or nodes, categories); choose an attack with access scores or labels."
        )
    return gradient.abs()
