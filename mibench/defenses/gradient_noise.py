r"""Gradient noise: every entry of the shared gradient is perturbed (evaluated by Zhu et al., Deep Leakage, 2019).

.. math:: \tilde g = g + n, \qquad n_i \sim \mathcal N(0, s^2) \ \text{ or } \
    n_i \sim \mathrm{Laplace}(0, s / \sqrt 2),

independent and new for every client and round; :math:`s` is the standard deviation of both. By itself this guarantees
nothing: a gradient has no bound, so no noise hides it. Where ``max_norm`` :math:`C` is given, the gradient is the mean
of per-example gradients clipped to that norm (:mod:`mibench.defenses.gradient_clipping`), any batch moves it by at most
:math:`2 C`, and Gaussian noise makes one message :math:`(\epsilon, \delta)`-locally private for all that is behind
it; only then is ``local_epsilon`` reported, by Opacus' accountant. It is that of one message: several of one client
compose. An l2 norm bounds no l1 sensitivity that would be of use, so Laplace noise reports nothing.

This is the standard definition and no paper's own method; there is no official code. The default deviation 0.1 is the
variance 0.01 from which on Zhu et al. find that their attack fails.
"""

from __future__ import annotations

import math
from typing import Literal

from mibench.defenses.base import Client, Defense, DefenseCard, Update
from mibench.optim.differential_privacy import clipped_mean, laplace_like, local_guarantee, with_gaussian
from mibench.options import NonNegative, Positive, Share


class GradientNoise(Defense):
    """Additive noise on the shared gradient."""

    card = DefenseCard(
        name="gradient_noise",
        title="Gradient noise",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2019,
        bib="dlg",
        fidelity="paper",
        hooks=("update",),
        affects=("gradients",),
        strength="std",
        stronger="higher",
    )

    std: NonNegative = 0.1
    """Standard deviation of the noise on every entry; 0 leaves the gradient as it is."""
    distribution: Literal["gaussian", "laplace"] = "gaussian"
    """Distribution of the noise."""
    max_norm: Positive | None = None
    """l2 norm to which each example's gradient is clipped beforehand; None for not."""
    delta: Share = 1e-5
    """The delta of the guarantee."""

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the gradient, clipped where that is asked for, with noise drawn from the client's seed."""
        if self.max_norm is not None:
            client.check_per_example(self.card.name)
            gradient = clipped_mean(client.model, client.batch, self.max_norm)
        if not self.std:
            return gradient
        draws = client.noise_draws(gradient)
        if self.distribution == "gaussian":
            return with_gaussian(gradient, self.std, draws)
        return {
            name: value + self.std * (laplace_like(value, draws) / math.sqrt(2)) for name, value in gradient.items()
        }

    def facts(self) -> dict[str, float | str]:
        """Return the local epsilon of one message where there is one: clipped, and with Gaussian noise."""
        if self.max_norm is None or self.distribution != "gaussian":
            return {}
        return local_guarantee(self.std, self.max_norm, self.delta)
