"""An attack of a few milliseconds that trains a network, searches and stores what any attack does."""

import torch
from torch import nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.options import Count
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal


class FaultToy(Attack[WhiteBoxView, ClassGoal]):
    """A bias that is trained on public images, and one step down the victim's loss from it."""

    card = AttackCard(
        name="fault_toy",
        title="Attack of the fault tests",
        modalities=("image",),
        fidelity="paper",
        family="floor",
        task="class",
        access=("white_box",),
        needs=("public",),
    )
    length = ("rounds",)

    rounds: Count = 2
    """Steps of the bias and of the images."""

    def networks(self, view: WhiteBoxView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return one bias per pixel."""
        return nn.ModuleDict({"bias": nn.Linear(1, view.spec.blank(1).numel())})

    def prepare(self, networks: nn.ModuleDict, view: WhiteBoxView, knowledge: Knowledge) -> None:
        """Move the bias to the mean public image."""
        adam, mean = torch.optim.Adam(networks.parameters(), lr=0.1), knowledge.public.x.mean(0).flatten()
        for _ in self.steps(self.rounds, "bias"):
            adam.zero_grad()
            (networks["bias"].bias - mean.to(view.device)).square().mean().backward()
            adam.step()

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the bias, a few steps down the loss of each class."""
        labels, blank = goal.labels.to(view.device), view.spec.blank(len(goal.labels))
        x = networks["bias"].bias.detach().reshape(blank[:1].shape).expand_as(blank).clone()
        for _ in self.steps(self.rounds):
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(view.logits(x), labels), x)
            x = view.spec.boxed(x.detach() - gradient)
        return Reconstruction(x, labels)
