r"""Learning to invert: a network that turns gradients into images (Wu et al., UAI 2023).

The attacker knows the global model and owns images of its own. It computes the gradient :math:`g(x, y)` that each of
them would have sent, treats it as the client's defense :math:`T` treats a gradient, and trains a perceptron :math:`h`
to undo all of it,

.. math:: \min_h E_{x_1 \ldots x_B} \min_\pi \frac{1}{B} \sum_i \big\| h_{\pi(i)}\big(T\big(\tfrac{1}{B} \sum_j
    g(x_j, y_j)\big)\big) - x_i \big\|^2,

over batches of :math:`B`, whose order no gradient tells: :math:`\pi` is their best matching (Hungarian algorithm, on
the CPU: the one wait of a training step, and none where :math:`B = 1`). A client's update then costs one forward pass.
:math:`T` is ``leak``: nothing, signs, pruning or Gaussian noise, drawn anew in every step. It adapts to a defense only
where kind and strength are those of the client; the attack does not look them up, the command says them. For large
models the gradient's entries are added up, with random signs, in ``hash_dim`` random buckets before :math:`h` reads it.

The public classes here are never the private ones: every cell is the paper's out-of-distribution case (its table 2),
and like its code half of the training images are drawn per coefficient from Gaussians fitted to the public images'
cosine transform (``synthetic``). No public image has a class that the model knows, so that each is given one at
random, which teaches as much of :math:`g`; a fixed one would tie the class to what the image shows.

Official code: https://github.com/wrh14/Learning_to_Invert. Deviations: entries are standardised by mean and deviation
over the training gradients; the best epoch is chosen by public images of its own (the script chooses by the test
images); a batch is averaged before it is defended, as one client would, where the script averages defended gradients;
synthetic images are clamped (the script wraps them around). A batch's mean is its gradient only where examples do not
meet inside the model and clients take one step: several steps and batch-norm's own statistics need a batch of one.
Labels are granted or read off by ``label_rule``, and stand in no order of the images.
"""

from __future__ import annotations

import math
from typing import Literal

import scipy.fft
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import message_labels
from mibench.errors import IncompatibleCellError, UserError
from mibench.nn.batch_norm import uses_batch_statistics
from mibench.optim.compression import largest
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import at_once
from mibench.optim.selection import Best
from mibench.options import Count, NonNegative, Portion, Positive, Share

#: Gradients by which entries are standardised, at the most.
SAMPLE = 1024

#: Numbers that are stored, at the most (32 GiB).
STORED = 2**33


class LearningToInvert(Attack[GradientsView, InstanceGoal]):
    """A perceptron from gradients to images, trained on gradients of public images."""

    card = AttackCard(
        name="learning_to_invert",
        title="Learning to Invert",
        modalities=("image",),
        year=2023,
        code="https://github.com/wrh14/Learning_to_Invert",
        fidelity="official",
        family="learned inversion",
        task="instance",
        access=("gradients",),
        needs=("public",),
        uses=("labels", "local_training"),
    )
    length = ("epochs",)

    leak: Literal["none", "sign", "prune", "gauss"] = "none"
    """What the client's defense is taken to be: ``none``, ``sign``, ``prune`` or ``gauss``."""
    keep_: Portion = 0.01
    """Share of the entries that pruning leaves."""
    scope: Literal["tensor", "all"] = "all"
    """Whether that is of every ``tensor`` or of ``all`` tensors together (the paper)."""
    std: NonNegative = 0.1
    """Standard deviation of the Gaussian noise."""
    hidden: Count = 3000
    """Units of both hidden layers."""
    epochs: Count = 200
    """Passes over the training images."""
    lr: Positive = 1e-4
    """Adam's learning rate."""
    decay_at: Share = 0.75
    """Share of the passes after which it falls to a tenth."""
    batch: Count = 256
    """Gradients of one training step."""
    synthetic: bool = True
    """Whether as many images again are drawn in the space of the cosine transform."""
    validation: Share = 0.1
    """Share of the public images by which the best epoch is chosen."""
    hash_dim: Count | None = None
    """Buckets that a gradient's entries are added up in; None leaves it as it is."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""

    def networks(self, view: GradientsView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return what reads a gradient and the perceptron behind it."""
        entries, pixels = sum(value.numel() for value in view.messages[0].values()), math.prod(view.spec.shape)
        inverter = nn.Sequential(
            nn.Linear(self.hash_dim or entries, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, view.batch_size * pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, (view.batch_size, pixels)),
        )
        return nn.ModuleDict({"reader": Reader(entries, self.hash_dim), "inverter": inverter})

    def prepare(self, networks: nn.ModuleDict, view: GradientsView, knowledge: Knowledge) -> None:
        """Train the perceptron on gradients of public images, which are charged to the account."""
        self._check(view)
        reader, inverter = networks["reader"], networks["inverter"]
        assert isinstance(reader, Reader)
        public, size = knowledge.public.x.to(view.device), view.batch_size
        order = torch.randperm(len(public), generator=self.draws(view.device, "validation"), device=view.device)
        held = math.ceil(len(public) * self.validation / size) * size
        if len(public) < held + size:
            raise UserError(f"Batches of {size} need {held + size} public images, but the dataset has {len(public)}.")
        learned, checked = public[order[held:]], public[order[:held]]
        if self.synthetic:
            learned = torch.cat([learned, cosine_gaussian(learned, self.draws(torch.device("cpu"), "synthetic"))])
        gradients, images = self.gradients(view, reader, learned, "training"), learned.flatten(1)
        checks = self.gradients(view, reader, checked, "validation").unflatten(0, (-1, size)).mean(1)
        truths = checked.flatten(1).unflatten(0, (-1, size))
        noise = self.draws(view.device, "noise")
        checks = self.leaked(view, reader, checks, noise)
        draws = self.draws(view.device, "order")
        sample = batches(len(images), size, draws)[:SAMPLE]
        reader.fit(self.leaked(view, reader, gradients[sample].mean(1), noise))

        parameters, best = list(inverter.parameters()), Best()
        adam = torch.optim.Adam(parameters, lr=self.lr)
        for epoch in self.steps(self.epochs, "inverter"):
            if epoch == int(self.decay_at * self.epochs):
                adam.param_groups[0]["lr"] = self.lr * 0.1
            for rows in batches(len(images), size, draws).split(self.batch):
                seen = self.leaked(view, reader, gradients[rows].mean(1), noise)
                loss = matched_error(inverter(reader(seen)), images[rows])
                for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = gradient
                adam.step()
            with torch.no_grad():
                best.offer(parameters, matched_error(inverter(reader(checks)), truths))
        with torch.no_grad():
            for parameter, value in zip(parameters, best.values, strict=True):
                parameter.copy_(value)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return what the perceptron makes of every message."""
        labels = message_labels(view, knowledge, self.label_rule)
        reader, inverter = networks["reader"], networks["inverter"]
        assert isinstance(reader, Reader)
        sent = torch.stack([torch.cat([value.flatten() for value in one.values()]) for one in view.messages])
        with torch.no_grad():
            made = inverter(reader(reader.hashed(sent)))
        images = made.reshape(-1, *view.spec.shape)
        valid = sent.isfinite().all(1).repeat_interleave(view.batch_size)
        return Reconstruction(images, goal.target.to(view.device), labels.flatten(), valid)

    def gradients(self, view: GradientsView, reader: Reader, x: Tensor, what: str) -> Tensor:
        """Return what each image alone would have sent, as far as it can be stored, shape ``(N, entries)``.

        Args:
            view: Computes the gradients.
            reader: Hashes them; what it hashes must be defended before.
            x: Images of shape ``(N, C, H, W)``.
            what: Names the draw of their classes.
        """
        if len(x) * len(reader.mean) > STORED:
            raise UserError(
                f"The gradients of {len(x)} images with {len(reader.mean)} entries each are too many to store; set "
                "attack.hash_dim=10000."
            )
        draws, rows = self.draws(view.device, "classes", what), []
        y = torch.randint(view.spec.classes, (len(x),), generator=draws, device=view.device)
        for images, labels in zip(*(one.split(at_once(view)) for one in (x, y)), strict=True):
            found = view.updates(images[:, None], labels[:, None])
            row = torch.cat([found[name].detach().flatten(1) for name in view.messages[0]], 1)
            rows.append(reader.hashed(self.defended(view, row) if self.hash_dim is not None else row))
        return torch.cat(rows)

    def leaked(self, view: GradientsView, reader: Reader, stored: Tensor, noise: torch.Generator) -> Tensor:
        """Return stored gradients, or means of them, as the client's defense leaves them, shape ``(n, entries)``."""
        if self.leak == "gauss":
            return stored + self.std * reader.spread * torch.randn(stored.shape, generator=noise, device=stored.device)
        return stored if self.hash_dim is not None else self.defended(view, stored)

    def defended(self, view: GradientsView, rows: Tensor) -> Tensor:
        """Return gradients ``(n, entries)`` after a defense that draws nothing: their signs, or their largest."""
        if self.leak == "sign":
            return rows.sign()
        if self.leak == "prune":
            sizes = [value.numel() for value in view.messages[0].values()] if self.scope == "tensor" else rows.shape[1]
            return torch.cat([largest(part, self.keep_) for part in rows.split(sizes, dim=1)], 1)
        return rows

    def _check(self, view: GradientsView) -> None:
        if view.batch_size == 1:
            return
        if view.deltas or uses_batch_statistics(view.model):
            raise IncompatibleCellError(
                "Learning to Invert averages gradients of single examples, which is not what a client sends that takes "
                "several steps or normalises by its batch; set setting.batch_size=1, or setting.batch_norm=eval and "
                "one local step."
            )
        if self.hash_dim is not None and self.leak in ("sign", "prune"):
            raise UserError(
                f"attack.leak={self.leak} must be applied to a batch's mean before it is hashed, but only hashed "
                "gradients are stored; set attack.hash_dim=null or setting.batch_size=1."
            )


class Reader(nn.Module):
    """Hashes gradients where it is asked to, and standardises their entries.

    Args:
        entries: Entries of a gradient.
        hash_dim: Buckets; None for none.
    """

    bucket: Tensor
    sign: Tensor
    mean: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, entries: int, hash_dim: int | None) -> None:
        super().__init__()
        self.hash_dim = hash_dim
        if hash_dim is not None:
            self.register_buffer("bucket", torch.randint(hash_dim, (entries,)))
            self.register_buffer("sign", (2 * torch.randint(2, (entries,)) - 1).to(torch.int8))
        width = hash_dim or entries
        counts = torch.ones(width) if hash_dim is None else self.bucket.bincount(minlength=width).float()
        self.register_buffer("spread", counts.sqrt())  # of noise of deviation 1 on every entry
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def hashed(self, gradients: Tensor) -> Tensor:
        """Return the sums of all buckets, shape ``(n, hash_dim)``; the gradients ``(n, entries)`` where none are."""
        if self.hash_dim is None:
            return gradients
        return gradients.new_zeros(len(gradients), self.hash_dim).index_add(1, self.bucket, gradients * self.sign)

    def fit(self, gradients: Tensor) -> None:
        """Take mean and deviation of every entry; one that hardly varies is not blown up."""
        deviation = gradients.std(0, correction=0)
        self.mean.copy_(gradients.mean(0))
        self.scale.copy_(deviation.clamp_min(1e-3 * deviation.square().mean().sqrt() + 1e-12))

    def forward(self, gradients: Tensor) -> Tensor:
        """Return standardised entries."""
        return (gradients - self.mean) / self.scale


def batches(examples: int, size: int, draws: torch.Generator) -> Tensor:
    """Return all examples in random batches of ``size``, shape ``(n, size)``; those left over are left out."""
    order = torch.randperm(examples, generator=draws, device=draws.device)
    return order[: examples // size * size].reshape(-1, size)


def matched_error(made: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error over the best matching of every batch, a scalar.

    Args:
        made: Images of shape ``(n, batch, pixels)``, in any order within a batch.
        truth: Images of shape ``(n, batch, pixels)``.
    """
    if made.shape[1] > 1:
        costs = torch.cdist(truth, made.detach()).square().cpu().numpy()
        columns = torch.stack([torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]).to(made.device)
        made = made.gather(1, columns[..., None].expand_as(made))
    return (made - truth).square().mean()


def cosine_gaussian(images: Tensor, draws: torch.Generator) -> Tensor:
    """Return as many images whose cosine coefficients are drawn from Gaussians of the images' mean and deviation.

    Args:
        images: Shape ``(N, C, H, W)`` in [0, 1].
        draws: Random generator on the CPU.
    """
    coefficients = torch.from_numpy(scipy.fft.dctn(images.cpu().numpy(), axes=(-2, -1), norm="ortho"))
    noise = torch.randn(coefficients.shape, generator=draws)
    drawn = coefficients.mean(0) + coefficients.std(0, correction=0) * noise
    made = torch.from_numpy(scipy.fft.idctn(drawn.numpy(), axes=(-2, -1), norm="ortho"))
    return made.clamp(0, 1).to(images)
