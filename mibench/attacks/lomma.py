r"""LOMMA: logit maximisation and model augmentation (Nguyen et al., CVPR 2023).

Nguyen, Chandrasegaran, Abdollahzadeh and Cheung, Re-thinking Model Inversion Attacks Against Deep Neural Networks. A
plug-in: it wraps another attack (``base``: GMI, KEDMI, PLG-MI) and changes its identity loss, nothing else. The
attacker owns the target's weights and public images. Students :math:`T_1 \ldots T_M` are distilled from the target
:math:`T_0` on the public images, :math:`\mathrm{KL}(\mathrm{softmax}\, T_0(x)/\tau \,\|\, \mathrm{softmax}\,
T_i(x)/\tau) / \tau^2`, so that what fools one model does not fool all. They learn from the target's soft labels: class
ids alone would not do. In place of the cross-entropy stands

.. math:: L_{id}(x) = \frac{1}{M + 1} \sum_{m=0}^{M} -l^{(m)}_y(x) \;+\; \lambda \, \frac{1}{d} \sum_j (h_j(x) - r_j)^2

with logits :math:`l`, the target's penultimate feature :math:`h`, and :math:`r` the mean of :math:`h` over public
images, or a draw from the Gaussian of their mean and spread. The logit has no log-partition that would let the gradient
vanish where the target is sure; the second term keeps it from growing by the length of the feature alone.

Official code: https://github.com/sutd-visual-computing-group/Re-thinking_MI. As there, the mean is the default of
:math:`r` (the paper draws), only the target's feature is held, and over KEDMI, which by itself does not clip them,
latents are clipped to ``clip``, inside the loss and of the results (``recovery.py``); a base that has a box keeps its
own. Deviations: the students are small convolutional
networks of three widths instead of EfficientNet-B0 to B2, trained with the authors' optimiser and schedule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.errors import UserError
from mibench.nn.adversarial import step_along
from mibench.nn.student import Student
from mibench.optim.identity import identity_loss
from mibench.options import Count, CountOrNone, NonNegative, Positive

#: Channels of the students' first layers; more students repeat them with other weights.
WIDTHS = (16, 24, 32)


class Lomma(Attack[WhiteBoxView, ClassGoal]):
    """Another attack under logit maximisation, feature regularisation and distilled students."""

    card = AttackCard(
        name="lomma",
        title="LOMMA",
        modalities=("image",),
        revision=2,
        year=2023,
        code="https://github.com/sutd-visual-computing-group/Re-thinking_MI",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public",),
    )
    length = ("epochs",)

    base: Attack[Any, Any]
    """The attack that is wrapped; choose it with ``attack@attack.base=NAME``."""
    loss: Literal["logit", "cross_entropy"] = "logit"
    """``logit``, or ``cross_entropy`` to leave the base's loss and add the students only."""
    students: CountOrNone = 3
    """Number of distilled students (M); 0 leaves the target alone."""
    epochs: Count = 20
    """Passes of a student over the public images."""
    batch_size: Count = 64
    """Images per step of a student."""
    lr: Positive = 0.01
    """Learning rate of the students (SGD with momentum 0.9, halved every 20 epochs)."""
    temperature: Positive = 1.0
    """Temperature of the distillation (tau)."""
    regularisation: NonNegative = 1.0
    """Weight of the feature term (lambda); it belongs to ``loss=logit``."""
    reference: Literal["mean", "sample"] = "mean"
    """``mean``, as in the authors' code, or ``sample``, as in the paper."""
    images: Count = 5000
    """Most public images of which the reference is taken."""
    clip: Positive | None = 1.0
    """Half-width of the box of latents where the base has the option and leaves it open (KEDMI); null leaves it so."""

    def __post_init__(self) -> None:
        """Refuse to wrap an attack without an identity loss."""
        super().__post_init__()
        if not isinstance(self.base, ClassSearch):
            raise UserError(
                f"attack=lomma puts another identity loss into the attack it wraps, and '{self.base.card.name}' has "
                "none that could be replaced; set attack@attack.base=gmi."
            )
        if getattr(self.base, "clip", self.clip) is None:
            self.base = replace(self.base, clip=self.clip)  # type: ignore[call-arg]  # those that have the option

    def networks(self, view: WhiteBoxView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return the untrained students, the reference of the features, and the base's own models."""
        self.lead(self.base)
        with torch.no_grad():
            dimensions = view.logits_and_features(knowledge.public.x[:2])[1].shape[1]
        students = [Student(view.spec, WIDTHS[i % len(WIDTHS)]) for i in range(self.students)]
        return nn.ModuleDict(
            {
                "students": nn.ModuleList(students),
                "reference": Reference(dimensions),
                "base": self.base.networks(view, knowledge),
            }
        )

    def prepare(self, networks: nn.ModuleDict, view: WhiteBoxView, knowledge: Knowledge) -> None:
        """Distil the students and measure the public features, then prepare the base."""
        public = knowledge.public.x
        with torch.no_grad():
            answers, hidden = zip(*(view.logits_and_features(part) for part in public.split(256)), strict=True)
        students, reference, base = parts(networks)
        reference.measure(torch.cat(hidden)[: self.images])
        for student in students:
            self.distil(student, public, torch.cat(answers))
        if len(base):
            self.base.prepare(base, view, knowledge)

    def distil(self, student: nn.Module, public: Tensor, answers: Tensor) -> None:
        """Train a student in place to give the target's logits' soft labels on public images."""
        draws = self.draws(public.device, "distillation")
        sgd = torch.optim.SGD(student.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)
        decay = torch.optim.lr_scheduler.StepLR(sgd, 20, 0.5)
        wanted = (answers / self.temperature).softmax(1)
        student.train()
        for _ in self.steps(self.epochs, "student"):
            for rows in torch.randperm(len(public), generator=draws, device=public.device).split(self.batch_size):
                said = (student(public[rows]) / self.temperature).log_softmax(1)
                apart = functional.kl_div(said, wanted[rows], reduction="batchmean") / self.temperature**2
                step_along(sgd, apart, student)
            decay.step()

    def identify(self, networks: nn.ModuleDict, view: WhiteBoxView, images: Tensor, labels: Tensor) -> Tensor:
        """Return the identity loss of every image, shape ``(N,)``."""
        students, reference, _ = parts(networks)
        logits, hidden = view.logits_and_features(images)
        said = [logits, *(student(images) for student in students)]
        identity = torch.stack([identity_loss(self.loss)(one, labels) for one in said]).mean(0)
        weight = self.regularisation if self.loss == "logit" else 0.0
        goal = reference.mean if self.reference == "mean" else self._drawn(reference, len(hidden))
        return identity + weight * (hidden - goal).square().mean(1)

    def _drawn(self, reference: Reference, n: int) -> Tensor:
        """Return one draw of the reference per image, the same at every step."""
        draws = self.draws(reference.mean.device, "reference")
        noise = torch.randn(n, len(reference.mean), generator=draws, device=draws.device)
        return reference.mean + reference.spread * noise

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return what the base returns under the new loss."""
        self.lead(self.base)
        assert isinstance(self.base, ClassSearch)
        self.base.replaced = lambda seen, images, labels: self.identify(networks, seen, images, labels)
        return self.base.reconstruct(view, knowledge, goal, parts(networks)[2])


class Reference(nn.Module):
    """Mean and spread of the target's features over public images.

    Attributes:
        mean: Shape ``(F,)``.
        spread: Standard deviations, shape ``(F,)``.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("spread", torch.ones(dimensions))

    def measure(self, hidden: Tensor) -> None:
        """Take mean and standard deviation of features ``(N, F)``."""
        self.mean.copy_(hidden.mean(0))
        self.spread.copy_(hidden.std(0))


def parts(networks: nn.ModuleDict) -> tuple[nn.ModuleList, Reference, nn.ModuleDict]:
    """Return students, reference and the base's own models."""
    return (
        cast(nn.ModuleList, networks["students"]),
        cast(Reference, networks["reference"]),
        cast(nn.ModuleDict, networks["base"]),
    )
