r"""DP-SGD: differentially private training (Abadi et al., Deep Learning with Differential Privacy, CCS 2016).

Every step takes each of the :math:`N` training examples with probability :math:`q`, clips each one's gradient over
all parameters jointly, and adds Gaussian noise:

.. math:: \tilde g = \frac{1}{q N} \left( \sum_i g_i \min(1, C / \|g_i\|_2) + \mathcal N(0, \sigma^2 C^2 I) \right)

The recipe's optimiser steps along :math:`\tilde g`. Opacus (https://github.com/pytorch/opacus) samples, clips, adds
noise and accounts; what is reported is :math:`\epsilon` at :math:`\delta` for adding or removing one example,
:math:`\delta = 1/N` unless it is given, and infinity without noise; ``epsilon_common`` is that of the same training at
the delta at which all defenses are compared. Batch norm mixes examples and has no private form: Opacus' group norm
takes its place in the architecture. The baseline ``noise_multiplier=0`` is clipping alone, in that architecture.

Deviations from the paper: :math:`q` is 1 / (steps per epoch of the recipe); the accountant is the tighter PRV one
(Gopi et al., 2021) by default, and RDP where the noise is too weak for PRV's grid; the recipe's schedule and
optimiser are kept; training is always float32. The scales of a table's numeric columns are taken from the training
records without noise, and :math:`\epsilon` does not cover them.

In federated learning a client does the same to its own batch of :math:`b` examples: the sum of the clipped
per-example gradients plus :math:`\mathcal N(0, \sigma^2 C^2 I)`, divided by :math:`b`. Rounds are not accounted, so
no :math:`\epsilon` is reported there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mibench.defenses.base import Classifier, Client, Defense, DefenseCard, DefenseContext, Examples, Training, Update
from mibench.errors import UserError
from mibench.optim.differential_privacy import (
    COMMON_DELTA,
    LEAST_PRV_NOISE,
    clipped_sum,
    finite_epsilon,
    guarantee,
    quiet,
    with_gaussian,
    without_batch_norm,
)
from mibench.optim.per_example import hooked, needs_copies, stand_apart, together
from mibench.options import NonNegative, Positive, Share
from mibench.seeding import derive, generator

#: Above this budget PRV's grid takes minutes or does not fit the memory; RDP accounts instead.
LARGEST_PRV_EPSILON = 100.0


class DpSgd(Defense):
    """Training with clipped per-example gradients and Gaussian noise."""

    card = DefenseCard(
        name="dp_sgd",
        title="DP-SGD",
        modalities=("image", "tabular"),
        year=2016,
        code="https://github.com/pytorch/opacus",
        fidelity="official",
        hooks=("architecture", "training", "update"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="noise_multiplier",
        stronger="higher",
        levels=(0.1, 0.3, 1.0, 3.0),
        baselines=(("noise_multiplier", 0.0),),
    )

    noise_multiplier: NonNegative = 1.0
    """Standard deviation of the noise over ``max_grad_norm`` (sigma)."""
    max_grad_norm: Positive = 1.0
    """Norm to which each example's gradient is clipped (C)."""
    target_epsilon: Positive | None = None
    """The epsilon to end at; the noise is then chosen for it and ``noise_multiplier`` is not used."""
    delta: Share | None = None
    """The delta of the guarantee; None means one over the number of training examples."""
    accountant: Literal["prv", "rdp"] = "prv"
    """What accounts for the training; ``rdp`` also does where the noise is too weak for ``prv``."""

    _spent: dict[str, float | str] = field(init=False, default_factory=dict, repr=False)

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with group norm in the place of batch norm, and without in-place activations."""
        return without_batch_norm(model)

    def fit(self, training: Training) -> Classifier:
        """Train the target under Opacus, and take Opacus' hooks off it again.

        Raises:
            UserError: If the target has no gradients of single examples; it names the module.
        """
        with quiet(), together(training.model):
            from opacus import PrivacyEngine

            copies = needs_copies(training.model, training.data)
            engine = PrivacyEngine(accountant=self._mechanism())
            private = self._private(training, engine)
            if copies:
                stand_apart(training.model)
            private.run()
            training.curve = private.curve
            delta = self.delta or 1 / len(training.data)
            noise = float(private.stepper.noise_multiplier)
            epsilon, accountant = _guarantee(engine, noise, delta)
            common = epsilon if delta == COMMON_DELTA else _guarantee(engine, noise, COMMON_DELTA)[0]
            spent = guarantee(epsilon, delta, common, accountant, "example", "add or remove")
            self._spent = {**spent, "noise_multiplier": noise}
        private.model.to_standard_module()  # type: ignore[operator]
        for parameter in training.model.parameters():
            parameter.grad = None
        return training.model.eval()

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the mean of the clipped per-example gradients of ``client.batch``, with noise.

        Raises:
            UserError: If a target epsilon is set: a single update has no budget to spend it on.
        """
        if self.target_epsilon is not None:
            raise UserError(
                "defense.target_epsilon needs a whole training to be spent on; in setting=federated set "
                "defense.noise_multiplier and leave defense.target_epsilon null."
            )
        client.check_per_example(self.card.name)
        total = clipped_sum(client.model, client.batch, self.max_grad_norm)
        noisy = with_gaussian(total, self.noise_multiplier * self.max_grad_norm, client.noise_draws(total))
        return {name: value / len(client.batch) for name, value in noisy.items()}

    def facts(self) -> dict[str, float | str]:
        """Return the guarantee of the training where there was one, the noise, the clipping norm and the accountant."""
        spent = self._spent or {"noise_multiplier": self.noise_multiplier, "accountant": "none"}
        return {**spent, "max_grad_norm": self.max_grad_norm}

    def _mechanism(self) -> str:
        weak = self.noise_multiplier < LEAST_PRV_NOISE
        if self.target_epsilon is not None:
            weak = self.target_epsilon > LARGEST_PRV_EPSILON
        return "rdp" if weak else self.accountant

    def _private(self, training: Training, engine: Any) -> _PrivateTraining:
        size = min(training.recipe.batch_size, len(training.data))
        loader = DataLoader(
            TensorDataset(torch.arange(len(training.data))),
            batch_size=size,
            generator=generator(derive(training.seed, "order")),
        )
        parts = {
            "module": hooked(training.model.train()),
            "optimizer": training.optimizer(),
            "data_loader": loader,
            "max_grad_norm": self.max_grad_norm,
            "noise_generator": generator(derive(training.seed, "noise"), training.device),
        }
        if self.target_epsilon is None:
            made = engine.make_private(**parts, noise_multiplier=self.noise_multiplier)
        else:
            made = engine.make_private_with_epsilon(
                **parts,
                target_epsilon=self.target_epsilon,
                target_delta=self.delta or 1 / len(training.data),
                epochs=training.epochs,
            )
        module, stepper, loader = made
        return _PrivateTraining.like(training, model=module, loader=loader, stepper=stepper)


@dataclass(kw_only=True)
class _PrivateTraining(Training):
    """The common loop over Opacus' module, optimiser and Poisson-sampled batches."""

    loader: DataLoader[Any]
    stepper: Any

    @property
    def steps_per_epoch(self) -> int:
        return len(self.loader)

    def optimizer(
        self, model: nn.Module | None = None, rates: Mapping[nn.Module, float] | None = None
    ) -> torch.optim.Optimizer:
        stepper: torch.optim.Optimizer = self.stepper
        return stepper

    def batches(self) -> Iterator[Examples]:
        for _ in range(self.epochs):
            for (index,) in self.loader:
                yield self.data[index.to(self.device)]


def _guarantee(engine: Any, noise: float, delta: float) -> tuple[float, str]:
    """Return epsilon and the accountant: none is spent without a step, and without noise there is no bound."""
    if not noise or not len(engine.accountant):
        return 0.0 if noise else math.inf, engine.accountant.mechanism()
    return finite_epsilon(engine.accountant, delta)
