r"""Hard labels: the service names the most probable class and nothing else.

The answer is the one-hot vector of :math:`\arg\max_i p_i`, of equal ones the first. With a ``threshold`` :math:`t` the
service abstains where :math:`\max_i p_i < t`: it answers zeros, which whoever sees labels reads as the class -1, and
which counts as a wrong answer where utility is measured. Scores and explanations are withheld: a cell whose attack
needs them is refused instead of run on one-hot vectors.

It does not protect from attacks that need no more than labels, of which boundary repulsion is one (Kahla et al.,
Label-Only Model Inversion Attacks via Boundary Repulsion, CVPR 2022): those are the attackers who know of it. Without a
threshold (``threshold=0``, the first of the levels) they meet just what they would meet without a defense; that cell
shows what remains. A threshold may help them, as long as the service itself stays right: where it abstains a point
counts as outside the class, so the search is pushed to where the model is sure. The committed rows, of one seed, point
that way (every level stands in ``docs/findings.md``) and decide nothing yet (claims ``label_only_threshold_att_faces``
and ``label_only_threshold_lfw``).

A standard measure without a paper of its own, and without official code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.defenses.base import Customer, Defense, DefenseCard
from mibench.options import Fraction


class LabelOnlyOutput(Defense):
    """The label alone, or no answer below a threshold, which helps who needs labels alone."""

    card = DefenseCard(
        name="label_only_output",
        title="Hard-label output",
        modalities=("image", "text", "tabular", "audio", "graph"),
        fidelity="paper",
        hooks=("output",),
        affects=("scores", "labels", "explanations"),
        withholds=("scores", "explanations"),
        strength="threshold",
        stronger="higher",
        levels=(0.0, 0.25, 0.5, 0.9),
        adaptive=("attack=brepmi",),
    )

    threshold: Fraction = 0.0
    """The least probability at which the label is said; 0 says it always."""

    def output(self, probabilities: Tensor) -> Tensor:
        """Return one-hot vectors ``(N, classes)``, of zeros where the service abstains."""
        best, labels = probabilities.max(1, keepdim=True)
        return torch.zeros_like(probabilities).scatter(1, labels, (best >= self.threshold).to(probabilities))

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return a map of zeros: a label is not explained."""
        return torch.zeros_like(saliency)
