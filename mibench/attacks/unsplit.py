r"""UnSplit: inputs and client part found together (Erdogan, Kupcu and Cicek, WPES 2022).

The server knows the architecture of the client's part :math:`f_c` and no weights, no data, and asks for nothing: it
sees what the client sends, :math:`z`. Beginning with grey images and an untrained copy :math:`\tilde f` it alternates
between the two unknowns of

.. math:: \min_{x, \tilde f} \; \mathrm{mean}\,(\tilde f(x) - z)^2 + a_{tv} \, \mathrm{TV}_2(x)
    + a_2 \, \mathrm{mean}\, x^2,

``input_steps`` of Adam on :math:`x` with the regularisers, then ``model_steps`` on the weights of :math:`\tilde f`
without, ``rounds`` times; both Adams keep their moments. Whether the second loss has the regularisers is all one: they
do not depend on the copy's weights, and Adam does not see the factor between sum and mean. Scale and sign of :math:`x`
are not determined (the first layer can undo them): by default images are stretched to [0, 1] at the end. The best round
by the feature distance is returned.

Official code: https://github.com/ege-erdogan/unsplit (1000 rounds of 100 and 100 steps of 1e-3, TV 0.1, l2 1).
Deviations: all images are found at once, with one copy and of all of them the mean distance, where the code goes from
one image to the next and takes the copy along: both let the images share the copy; batch norm of the copy is in
evaluation mode, as the client's is; the code stretches images of colour only. The inference of labels from the gradient
that a client with labels gets back is left out: this setting has no such protocol. A defense that changes the
architecture is part of it; a random ``features`` hook is not known to the copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.access import FeaturesView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.optim.regularisers import total_variation
from mibench.optim.selection import Best
from mibench.options import Count, NonNegative, Positive


class UnSplit(Attack[FeaturesView, InstanceGoal]):
    """Alternating descent on inputs and on an untrained copy of the client's part."""

    card = AttackCard(
        name="unsplit",
        title="UnSplit",
        modalities=("image",),
        year=2022,
        code="https://github.com/ege-erdogan/unsplit",
        fidelity="official",
        family="feature matching",
        task="instance",
        access=("features",),
        encoder="architecture",
    )
    length = ("rounds",)

    rounds: Count = 1000
    """Times that both are descended in turn."""
    input_steps: Count = 100
    """Steps on the inputs in each."""
    model_steps: Count = 100
    """Steps on the copy's weights in each."""
    lr: Positive = 1e-3
    """Step size of both."""
    tv: NonNegative = 0.1
    """Weight of the mean squared total variation."""
    l2: NonNegative = 1.0
    """Weight of the mean square of the image."""
    start: NonNegative = 0.5
    """Grey value of the first images."""
    stretched: bool = True
    """Whether every image is stretched to [0, 1] at the end; otherwise it is clamped."""

    def reconstruct(
        self, view: FeaturesView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the images of the round with the lowest feature distance."""
        sent, copy = view.features, view.untrained(self.draws(torch.device("cpu"), "copy").initial_seed())
        images = torch.full((len(sent), *view.spec.shape), self.start, device=view.device, requires_grad=True)
        weights = [weight for weight in copy.parameters() if weight.requires_grad]
        of_images, of_weights = (torch.optim.Adam(one, lr=self.lr, amsgrad=True) for one in ([images], weights))
        best = Best()

        def apart() -> Tensor:
            each: Tensor = (copy(images) - sent).square().flatten(1).mean(1)
            return each

        def smooth() -> Tensor:
            rough, large = total_variation(images, 2), images.square().flatten(1).mean(1)
            return (apart() + self.tv * rough + self.l2 * large).sum()

        def answer() -> Reconstruction:
            found, distances = best.values
            shown = stretched(found) if self.stretched else view.spec.boxed(found)
            return Reconstruction(shown, goal.target.to(view.device), valid=distances.isfinite(), loss=distances)

        for _ in self.steps(self.rounds):
            for _ in range(self.input_steps):
                (images.grad,) = torch.autograd.grad(smooth(), images)
                of_images.step()
            for _ in range(self.model_steps):
                gradients = torch.autograd.grad(apart().mean(), weights)
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.grad = gradient
                of_weights.step()
            with torch.no_grad():
                distances = apart()
                best.offer([images, distances], distances.mean())
        return answer()


def stretched(images: Tensor) -> Tensor:
    """Return every image brought linearly to the full range [0, 1]; a flat one becomes black."""
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low).clamp_min(1e-9)).reshape(images.shape)
