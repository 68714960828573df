r"""GI-NAS: gradient inversion through neural architecture search (Yu et al., arXiv 2405.20725, IEEE TIFS 2025).

Which untrained network is a good prior depends on the batch. Before CI-Net's search of the weights the attacker
therefore searches the architecture, without training any: with noise :math:`u` drawn once, every candidate
:math:`G_r`, a random hourglass with random weights :math:`w_r` (:mod:`mibench.nn.hourglass`), is scored by how far the
gradient of the image that it makes as it is lies from the client's :math:`g`,

.. math:: s_r = 1 - \frac{\langle \nabla_\theta L(G_r(u), y), g \rangle}{\| \nabla_\theta L(G_r(u), y) \| \| g \|},

and the weights of the best one are searched from :math:`w_r` on, with the same noise, by CI-Net's signed Adam
(:mod:`mibench.attacks.ci_net`). Official code: https://github.com/cswbyu/GI-NAS (5,000 candidates, batches of four; the
model is a ResNet-18 with sigmoids). Deviations: candidates are drawn at random from the code's search space in place of
its list of 5,000 skip patterns; all messages are offered the same candidates with the same weights, each drawn once
and forgotten until it has won; labels are read off unless they are granted; kept is the image of the lowest distance,
a candidate's own among them, not the last. Messages are searched one after another, since each has an architecture of
its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.weight_search import WeightSearch
from mibench.errors import UserError
from mibench.nn.hourglass import Architecture, Hourglass, depth, noise_shape
from mibench.nn.stacked import StackedNetworks
from mibench.optim.problems import Found, Problems, Sent
from mibench.options import Count
from mibench.seeding import derive, seeded


class GiNas(WeightSearch):
    """A search of architectures by the gradient of their untrained images, then CI-Net's search with the best."""

    card = AttackCard(
        name="gi_nas",
        title="GI-NAS",
        modalities=("image",),
        year=2025,
        code="https://github.com/cswbyu/GI-NAS",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
    )

    num_candidates: Count = 5000
    """Architectures that are scored."""
    levels: Count = 5
    """Times that the hourglass halves the size; fewer for small images in small batches."""
    channels: Count = 128
    """Channels inside, a multiple of 16."""
    iterations: Count = 30000
    """Steps in the winner's weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 16:
            raise UserError(f"Expected attack.channels to be a multiple of 16, but got {self.channels}.")

    def depth(self, view: GradientsView) -> int:
        """Return how often the hourglass halves the size of the view's images."""
        return depth(view.spec.shape, view.batch_size, self.levels)

    def candidate(self, view: GradientsView, restart: int, number: int) -> Hourglass:
        """Return a candidate with its initial weights, the same ones at every call."""
        draws = self.draws(torch.device("cpu"), "candidate", restart, number)
        architecture = Architecture.draw(self.depth(view), draws)
        with seeded(derive(draws.initial_seed(), "weights")):
            return Hourglass(view.spec.shape, architecture, self.channels).to(view.device)

    def search(self, view: GradientsView, labels: Tensor, sent: Sent, u: Tensor, found: Found) -> Found:
        """Return of every problem the number of its best candidate, with its score; offers their images to ``found``.

        Args:
            view: What the attacker sees.
            labels: Class ids of every message.
            sent: The messages.
            u: The noise of every problem.
            found: Where the best images are kept.
        """
        problems, best = found.problems, Found(found.problems)
        for number in self.steps(self.num_candidates, "architectures"):
            for restart in range(problems.restarts):
                network = self.candidate(view, restart, number)
                for rows in problems.rows[restart :: problems.restarts].split(problems.at_once):
                    with torch.no_grad():
                        images = torch.stack([network(u[row]) for row in rows.tolist()])
                    scores = self.apart(view, images, labels[problems.message(rows)], sent.of(rows)).detach()
                    found.offer(rows, [images], scores)
                    best.offer(rows, [torch.full_like(scores, number, dtype=torch.long)], scores)
        return best

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
        labels, problems = self.labels(view, knowledge), self.problems(view)
        found, alone = Found(problems), Problems(1, 1, 1)
        self.keep(lambda: self.answer(view, goal, found, labels))
        u = self.noise(view, problems, "noise", view.batch_size, *noise_shape(view.spec.shape, self.depth(view)))
        with view.phase("initialise"):
            best = self.search(view, labels, Sent(view.messages, problems), u, found)
        for row, number in enumerate(best.values[0].tolist()):
            message, restart = divmod(row, problems.restarts)
            one, own = Sent(view.messages[message : message + 1], alone), Found(alone)
            generator = StackedNetworks([self.candidate(view, restart, number)])
            steps = self.steps(self.iterations, f"update {message}")
            try:
                self.descend(view, labels[message : message + 1], one, generator, u[row : row + 1], own, steps)
            finally:
                if own.values:
                    found.offer(torch.tensor([row]), own.values, own.scores)
        return self.answer(view, goal, found, labels)
