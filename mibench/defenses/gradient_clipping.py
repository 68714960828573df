r"""Gradient clipping: each example's gradient is bounded before the mean (Abadi et al., Deep Learning with DP, 2016).

The client takes the gradient :math:`g_i` of every one of its :math:`b` examples, in evaluation mode, over all
parameters jointly, and shares

.. math:: \tilde g = \frac1b \sum_i g_i \min(1, C / \|g_i\|_2) + \mathcal N(0, \sigma^2 C^2 I).

Without noise (:math:`\sigma = 0`, the default) this guarantees nothing: a batch of one tells its direction exactly,
and only the length is hidden. With noise, :math:`\|\tilde g\|` had a bound of :math:`C` before it, so that any other
batch would have moved it by at most :math:`2 C`: one message is :math:`(\epsilon, \delta)`-locally private for all
that is behind it. That ``local_epsilon`` is reported, by Opacus' accountant for a multiplier of :math:`\sigma / 2`. It
is that of one message, given the global model; several of one client compose. It covers neither what the global model
already holds of the client, nor batch-norm buffers sent along, nor the scales of a table's numeric columns, which are
taken from the training records without noise.

It differs from ``defense=dp_sgd`` in a federated cell: there the noise lies on the sum, so that its share of the mean
falls with :math:`b`, what is private is one example against the published sum, and batch norm is replaced. This
is the standard definition and no paper's own method; there is no official code.
"""

from __future__ import annotations

from mibench.defenses.base import Client, Defense, DefenseCard, Update
from mibench.optim.differential_privacy import clipped_mean, local_guarantee, with_gaussian
from mibench.options import NonNegative, Positive, Share


class GradientClipping(Defense):
    """The mean of clipped per-example gradients, with optional noise."""

    card = DefenseCard(
        name="gradient_clipping",
        title="Gradient clipping",
        modalities=("image", "tabular"),
        year=2016,
        bib="dp_sgd",
        fidelity="paper",
        hooks=("update",),
        affects=("gradients",),
        strength="noise_multiplier",
        stronger="higher",
        levels=(0.0, 0.01, 0.1, 1.0),
    )

    max_norm: Positive = 1.0
    """l2 norm C to which each example's gradient is clipped."""
    noise_multiplier: NonNegative = 0.0
    """Standard deviation of the Gaussian noise on the mean over ``max_norm`` (sigma); 0 for none."""
    delta: Share = 1e-5
    """The delta of the guarantee."""

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the mean of the clipped gradients of ``client.batch``, with noise drawn from the client's seed."""
        client.check_per_example(self.card.name)
        mean = clipped_mean(client.model, client.batch, self.max_norm)
        if not self.noise_multiplier:
            return mean
        return with_gaussian(mean, self.noise_multiplier * self.max_norm, client.noise_draws(mean))

    def facts(self) -> dict[str, float | str]:
        """Return the local epsilon of one message where there is noise."""
        return local_guarantee(self.noise_multiplier * self.max_norm, self.max_norm, self.delta)
