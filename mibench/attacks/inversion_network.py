r"""Inversion network: a decoder from the service's answers back to images.

Yang et al., Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment, CCS 2019. The attacker
asks the service :math:`F` once about every public image :math:`x` and trains a decoder :math:`G` of transposed
convolutions to undo it,

.. math:: \min_G \; \mathrm{mean}_x \|G(e(F(x))) - x\|^2, \qquad e(p)_i = \begin{cases} \log p_i + c + r & p_i \text{
    is kept} \\ 0 & \text{otherwise,} \end{cases}

where the ``topk`` largest entries are kept and :math:`r` lifts a row whose least kept entry would be negative to 0.
What matters is alignment: :math:`G` is trained on answers truncated as those it will read are. The answers are the
service's own, after its defenses, and an entry that it answers with 0 (rounded away, or not among those it tells) is
not kept, so the decoder is aligned with the service whatever ``topk`` is. Output defenses are thereby known to this
attacker.

The paper reads answers that others got for private images, and that the attacker has observed:
``attack=inversion_network_instance``, of the task ``instance``. Its control is what :math:`G` makes of the next
observed answer; the null ``class_mean`` is what the class alone would give.

``attack=inversion_network`` is an addition, of the task ``class``: :math:`G` is given the one-hot vector of class
:math:`y`, the surest answer there could be. That makes one image per class, so all samples are copies of it; and it is
no answer that a service without truncation gives, so the fewer entries are kept, the better is the class met and the
less is there beside it.

Official code: https://github.com/yziqi/adversarial-model-inversion (``model.py``, ``train_inversion.py``). Deviations:
the epoch is chosen on held-out public images, where the script looks at the private ones; an answer of 0 is not kept,
where the code takes :math:`\log 0 = -1000`; for sizes other than 64 the number of doublings follows the size. Where
the service stops answering, the decoder is trained on what was answered.
"""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from mibench.access import ScoresView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, GoalT, InstanceGoal, Knowledge, Reconstruction
from mibench.data import InputSpec
from mibench.errors import QueryRefused, UserError
from mibench.nn.adversarial import fitted, step_along
from mibench.optim.selection import Best
from mibench.options import Count, NonNegative, Positive, Share

log = logging.getLogger("mibench")


class AnswerDecoder(Attack[ScoresView, GoalT]):
    """A decoder from answers to images, trained on what the service answers to public images."""

    length = ("epochs",)

    topk: Count | None = None
    """Entries of an answer that are kept; null keeps all that the service gives."""
    shift: NonNegative = 50.0
    """Added to the logarithm of kept entries (c), to tell them from the others."""
    width: Count = 128
    """Channels of the decoder next to the image."""
    epochs: Count = 100
    """Passes over the public images."""
    lr: Positive = 2e-4
    """Adam's learning rate."""
    batch_size: Count = 128
    """Images of one query and of one training step."""
    validation: Share = 0.1
    """Share of the public images by which the best epoch is chosen."""

    def networks(self, view: ScoresView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return the untrained decoder."""
        return nn.ModuleDict({"decoder": Decoder(view.spec, self.width)})

    def prepare(self, networks: nn.ModuleDict, view: ScoresView, knowledge: Knowledge) -> None:
        """Ask about every public image once, then train the decoder; stopped early, on those that were answered."""
        decoder, public = networks["decoder"], knowledge.public.x.to(view.device)
        public = public[torch.randperm(len(public), generator=self.draws(view.device, "public"), device=view.device)]
        answers = self.encoded(answered(view, public, self.batch_size))
        held = math.ceil(len(answers) * self.validation)
        if len(answers) <= held:
            raise UserError("attack=inversion_network needs at least two public images; give the dataset more.")
        public, draws = public[: len(answers)], self.draws(view.device, "order")
        adam = torch.optim.Adam(decoder.parameters(), lr=self.lr, betas=(0.5, 0.999), amsgrad=True)
        best, state = Best(), list(decoder.state_dict().values())
        for _ in self.steps(self.epochs, "decoder"):
            order = held + torch.randperm(len(answers) - held, generator=draws, device=view.device)
            decoder.train()
            for rows in order.split(self.batch_size):
                step_along(adam, mse_loss(decoder(answers[rows]), public[rows]), decoder)
            decoder.eval()
            with torch.no_grad():
                best.offer(state, mse_loss(decoder(answers[:held]), public[:held]))
        best.copy_to(state)

    def encoded(self, answers: Tensor) -> Tensor:
        """Return answers ``(N, classes)`` as the decoder reads them: at least 0, and 0 where they are not kept."""
        kept = answers > 0
        if self.topk is not None and self.topk < answers.shape[1]:
            kept &= torch.zeros_like(kept).scatter(1, answers.topk(self.topk, 1).indices, True)
        raised = answers.masked_fill(~kept, 1.0).log() + self.shift
        least = raised.masked_fill(~kept, torch.inf).amin(1, keepdim=True)
        return (raised + (-least).clamp_min(0)).masked_fill(~kept, 0.0)


class InversionNetwork(AnswerDecoder[ClassGoal]):
    """A decoder from answers to images, trained on public images and given the one-hot vector of each class."""

    card = AttackCard(
        name="inversion_network",
        title="Inversion network",
        modalities=("image",),
        year=2019,
        code="https://github.com/yziqi/adversarial-model-inversion",
        fidelity="official",
        family="learned inversion",
        task="class",
        access=("scores",),
        needs=("public",),
    )

    def reconstruct(
        self, view: ScoresView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return what the decoder makes of every class's vector; the victim is not asked."""
        wanted = one_hot(goal.targets.to(view.device), view.spec.classes).float()
        with torch.no_grad():
            images = networks["decoder"](self.encoded(wanted))
        return Reconstruction(images.repeat_interleave(goal.samples, 0), goal.labels.to(view.device))


class InversionNetworkInstance(AnswerDecoder[InstanceGoal]):
    """A decoder from answers to images, trained on public images and given the observed answers."""

    card = AttackCard(
        name="inversion_network",
        title="Inversion network",
        modalities=("image",),
        year=2019,
        code="https://github.com/yziqi/adversarial-model-inversion",
        fidelity="official",
        family="learned inversion",
        task="instance",
        access=("scores",),
        needs=("public",),
    )

    def reconstruct(
        self, view: ScoresView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return what the decoder makes of every observed answer, and its class; the victim is not asked."""
        observed = view.observed
        assert observed is not None, "the setting observes answers for the task instance"
        with torch.no_grad():
            images = networks["decoder"](self.encoded(observed))
        return Reconstruction(images, goal.target.to(view.device), observed.argmax(1))


class Decoder(nn.Sequential):
    """Transposed convolutions from a vector to 4x4 features and on to the image, doubling the size.

    Args:
        spec: Facts of the input, images.
        width: Channels next to the image; each size before has twice as many.
    """

    def __init__(self, spec: InputSpec, width: int) -> None:
        channels, *self.size = spec.shape
        doublings = max(1, math.ceil(math.log2(max(self.size) / 4)))
        widths = [width * 2**i for i in reversed(range(doublings))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(spec.classes, widths[0], 4), *after(widths[0])]
        for before, now in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, now, 4, 2, 1), *after(now)]
        super().__init__(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, vectors: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] of vectors ``(N, classes)``."""
        images: Tensor = super().forward(vectors[:, :, None, None])  # type: ignore[no-untyped-call]
        return fitted(images, (self.size[0], self.size[1])).clamp(0, 1)


def after(channels: int) -> tuple[nn.Module, nn.Module]:
    """Return what follows a transposed convolution."""
    return nn.BatchNorm2d(channels), nn.Tanh()


def answered(view: ScoresView, images: Tensor, batch_size: int) -> Tensor:
    """Return the service's answers to images, ``(n, classes)``: to the first of them where it stops answering.

    Raises:
        QueryRefused: If it answers none.
    """
    answers: list[Tensor] = []
    for part in images.split(batch_size):
        try:
            answers.append(view.query(part))
        except QueryRefused as refusal:
            if not answers:
                raise
            log.warning("The decoder is trained on fewer public images: %s", refusal)
            break
    return torch.cat(answers)
