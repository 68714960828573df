r"""rMLE: regularised feature matching with the client's weights (He et al., ACSAC 2019).

Z. He, T. Zhang and R. B. Lee, Model Inversion Attacks Against Collaborative Inference; the "model-free" attack of
ResSFL (Li et al., CVPR 2022).

Whoever holds the client's part :math:`f_c` searches the input whose features are those that were sent, :math:`z`,

.. math:: \min_{x \in [0, 1]} \mathrm{mean}\,(f_c(x) - z)^2 + a_{tv} \, \mathrm{TV}_2(x) + a_2 \, \mathrm{mean}\, x^2,

with Adam, from grey with a little noise, :math:`f_c` frozen in evaluation mode. Of the ``restarts`` and of all steps
the point of the lowest feature distance is returned; no true image takes part in the choice. No data are needed. Where
clients send several noisy copies of the same features, :math:`z` is their mean. A random ``features`` hook is unknown
to the attacker beyond that: it searches as if :math:`f_c(x)` had been sent.

Official code: https://github.com/zlijingtao/ResSFL (``MIA_mf``: Adam 0.8 with eps 1e-3 and amsgrad, from black, no
regulariser, no box); the defaults here keep amsgrad and take a step of 0.02 with the box, as that reaches exact inputs
of injective client parts. He et al.'s original code was not read; they tune the variation's weight per depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.access import FeaturesView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.optim.constraints import box
from mibench.optim.descent import adam_descent
from mibench.optim.regularisers import total_variation
from mibench.optim.selection import take_best
from mibench.options import Count, NonNegative, Positive

#: Deviation of the noise that tells one start from another.
SPREAD = 0.01


class SplitRmle(Attack[FeaturesView, InstanceGoal]):
    """Feature matching by gradient descent on the input."""

    card = AttackCard(
        name="split_rmle",
        title="rMLE",
        modalities=("image",),
        year=2019,
        code="https://github.com/zlijingtao/ResSFL",
        fidelity="official",
        family="feature matching",
        task="instance",
        access=("features",),
        encoder="weights",
    )
    length = ("iterations",)

    iterations: Count = 3000
    """Descent steps."""
    lr: Positive = 0.02
    """Adam's step size."""
    eps: Positive = 1e-8
    """Added to the root of Adam's second moment; large steps need a large one."""
    amsgrad: bool = True
    """Whether Adam's second moment never falls."""
    tv: NonNegative = 0.0
    """Weight of the mean squared total variation."""
    l2: NonNegative = 0.0
    """Weight of the mean square of the image."""
    start: NonNegative = 0.5
    """Grey value from which the search starts."""
    boxed: bool = True
    """Whether images are clamped to [0, 1] after every step, and not only at the end."""
    restarts: Count = 2
    """Starts per image."""

    def reconstruct(
        self, view: FeaturesView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the best point met for every image; those for which no finite distance was met are missing."""
        encoder, sent, shape = view.encoder, view.features, (len(view.features), *view.spec.shape)
        best, distances = view.spec.blank(len(sent), view.device), torch.full((len(sent),), torch.inf).to(sent)

        def answer() -> Reconstruction:
            return Reconstruction(
                view.spec.boxed(best), goal.target.to(view.device), valid=distances.isfinite(), loss=distances
            )

        def objective(x: Tensor) -> Tensor:
            nonlocal best, distances
            apart = (encoder(x) - sent).square().flatten(1).mean(1)
            best, distances = take_best(best, distances, x.detach(), apart.detach())
            rough, bright = total_variation(x, 2), x.square().flatten(1).mean(1)
            total: Tensor = apart + self.tv * rough + self.l2 * bright
            return total

        self.keep(answer)
        for restart in range(self.restarts):
            noise = torch.randn(shape, generator=self.draws(view.device, "start", restart), device=view.device)
            (last,) = adam_descent(
                [view.spec.boxed(self.start + SPREAD * noise)],
                objective,
                self.steps(self.iterations, f"start {restart + 1}"),
                lr=self.lr,
                eps=self.eps,
                amsgrad=self.amsgrad,
                project=(lambda moving: [box(one, 0, 1) for one in moving]) if self.boxed else None,
            )
            with torch.no_grad(), view.phase("select"):
                objective(last)
        return answer()
