"""One training loop for every classifier; defenses change its loss or replace it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from mibench.data import Examples
from mibench.entry import Objective
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.options import CountOrNone, Decay, NonNegative, Positive
from mibench.precision import computing, laid_out
from mibench.seeding import derive, generator, seeded
from mibench.storage.progress import progress

#: Most points of a recorded loss curve.
CURVE_POINTS = 200


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Examples per step; the last, smaller batch is dropped where there is more than one.
        lr: Learning rate.
        optimizer: ``adam`` or ``sgd``.
        momentum: Momentum of SGD.
        weight_decay: l2 penalty.
        schedule: ``constant`` or ``cosine``.
        min_steps: Optimiser steps taken at the least: small data are passed over more often.
        flip: Whether every image of a batch is mirrored left to right with probability 1/2.
    """

    epochs: int = 20
    batch_size: int = 64
    lr: Positive = 1e-3
    optimizer: str = "adam"
    momentum: Decay = 0.9
    weight_decay: NonNegative = 0.0
    schedule: str = "cosine"
    min_steps: CountOrNone = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.lr <= 0:
            raise UserError(
                "Expected target.recipe to have epochs >= 0, batch_size >= 1 and lr > 0, but got "
                f"epochs={self.epochs}, batch_size={self.batch_size}, lr={self.lr}."
            )
        for key, value, known in (
            ("optimizer", self.optimizer, ("adam", "sgd")),
            ("schedule", self.schedule, ("constant", "cosine")),
        ):
            if value not in known:
                raise UserError(f"Expected target.recipe.{key} to be {' or '.join(known)}, but got '{value}'.")

    def steps_of_epoch(self, examples: int) -> int:
        """Return the optimiser steps of one pass over so many examples."""
        return max(1, examples // self.batch_size)

    def passes(self, steps_per_epoch: int) -> int:
        """Return the passes over the data, each of so many steps: ``epochs``, or as many as ``min_steps`` need."""
        return max(self.epochs, math.ceil(self.min_steps / steps_per_epoch)) if self.epochs else 0

    def views(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """Return a batch as it is learned from, each image mirrored or not where the recipe says ``flip``.

        Args:
            x: Inputs; images ``(N, C, H, W)`` where they are mirrored.
            draws: Random generator on the CPU.

        Raises:
            UserError: If inputs that are no images are to be mirrored.
        """
        if not self.flip:
            return x
        if x.ndim != 4:
            raise UserError("Only images can be mirrored, but these inputs are none; set target.recipe.flip=false.")
        mirrored = torch.rand(len(x), generator=draws) < 0.5
        return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(3), x)


@dataclass(frozen=True)
class Batch:
    """One training batch with the model that learns from it.

    Attributes:
        model: The model in training.
        x: Inputs.
        y: Class ids.
        progress: Share of the training that lies behind the batch, from 0 to below 1; 1 once the training is over
            and the model learns on.
    """

    model: Classifier
    x: Tensor
    y: Tensor
    progress: float = 0.0

    @property
    def objective(self) -> Objective:
        """What the model is trained for."""
        return getattr(self.model, "_module", self.model).objective  # Opacus wraps the model that it trains


def cross_entropy(batch: Batch) -> Tensor:
    """Return the plain loss of the model's objective."""
    return batch.objective.mean(batch.model(batch.x), batch.y)


@dataclass
class Training:
    """A training about to happen: what a defense's ``fit`` is given.

    Attributes:
        model: The initialised model, on ``device``.
        data: The training data, on ``device``.
        recipe: How to train.
        seed: Seed of the order of examples and of dropout.
        device: Where it runs.
        precision: What the loss is computed in (:mod:`mibench.precision`); the optimiser's steps are float32.
        label: Name of the progress bar.
        public: Public data, on ``device``, for a defense that says it learns from them.
        curve: After :meth:`run`: the loss of evenly spaced steps, as pairs (step, loss).
    """

    model: Classifier
    data: Examples
    recipe: Recipe
    seed: int
    device: torch.device
    precision: str = "float32"
    label: str = "training"
    public: Examples | None = None
    curve: list[tuple[int, float]] = field(default_factory=list, init=False)

    @classmethod
    def like(cls, training: Training, **more: Any) -> Self:
        """Return a training of this class on the data and the recipe of another one, in float32.

        Args:
            training: The other one.
            more: What this class adds, or has instead (``model``).
        """
        same = ("model", "data", "recipe", "seed", "device", "label")
        return cls(**{**{name: getattr(training, name) for name in same}, **more})

    def optimizer(
        self, model: nn.Module | None = None, rates: Mapping[nn.Module, float] | None = None
    ) -> torch.optim.Optimizer:
        """Return the recipe's optimiser over the trainable parameters of ``model`` (default: the model itself).

        Args:
            model: What is trained.
            rates: Parts of it that learn at a multiple of the recipe's learning rate; none inside another.
        """
        own = {id(p): rate for part, rate in (rates or {}).items() for p in part.parameters()}
        grouped: dict[float, list[nn.Parameter]] = {1.0: []}
        for p in (model or self.model).parameters():
            if p.requires_grad:
                grouped.setdefault(own.get(id(p), 1.0), []).append(p)
        parameters = [{"params": ps, "lr": rate * self.recipe.lr} for rate, ps in grouped.items() if ps]
        if self.recipe.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=self.recipe.lr, momentum=self.recipe.momentum, weight_decay=self.recipe.weight_decay
            )
        return torch.optim.Adam(parameters, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass."""
        return self.recipe.steps_of_epoch(len(self.data))

    @property
    def epochs(self) -> int:
        """Passes over the data: the recipe's, or as many as its ``min_steps`` need."""
        return self.recipe.passes(self.steps_per_epoch)

    def batches(self) -> Iterator[Examples]:
        """Yield every batch of every epoch, reshuffled per epoch; smaller last batches are dropped.

        Images are mirrored where the recipe says so.
        """
        order, draws = (generator(derive(self.seed, what), "cpu") for what in ("order", "views"))
        size = min(self.recipe.batch_size, len(self.data))
        for _ in range(self.epochs):
            shuffled = torch.randperm(len(self.data), generator=order).to(self.device)
            for start in range(0, len(shuffled) - size + 1, size):
                batch = self.data[shuffled[start : start + size]]
                yield Examples(self.recipe.views(batch.x, draws), batch.y)

    def run(
        self, loss: Callable[[Batch], Tensor] = cross_entropy, rates: Mapping[nn.Module, float] | None = None
    ) -> Classifier:
        """Train the model with ``loss``, parts of it at ``rates``, and return it in evaluation mode."""
        optimizer = self.optimizer(rates=rates)
        steps = self.epochs * self.steps_per_epoch
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor(steps))
        losses: dict[int, Tensor] = {}  # kept on the device: nothing waits for it before the end
        every = max(1, math.ceil(steps / CURVE_POINTS))
        self.model.train()
        with seeded(derive(self.seed, "training")), laid_out(self.precision, self.model):
            for step, examples in enumerate(progress(self.batches(), self.label, total=steps)):
                optimizer.zero_grad(set_to_none=True)
                with computing(self.precision, self.device):
                    value = loss(Batch(self.model, examples.x, examples.y, step / steps))
                value.backward()
                optimizer.step()
                scheduler.step()
                if step % every == 0:
                    losses[step] = value.detach()
        if losses:
            self.curve = list(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        return self.model.eval()

    def _factor(self, steps: int) -> Callable[[int], float]:
        if self.recipe.schedule == "constant":
            return lambda step: 1.0
        return lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


@torch.no_grad()
def is_correct(predict_proba: Callable[[Tensor], Tensor], data: Examples) -> Tensor:
    """Return whether each example's most probable class is its own, shape ``(N,)``, on the CPU; no answer is wrong."""
    return Objective().correct(predict_proba(data.x).cpu(), data.y.cpu())


@contextlib.contextmanager
def frozen(model: Classifier) -> Iterator[Classifier]:
    """Let no parameter of ``model`` take gradients inside the block."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        yield model.requires_grad_(False)
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
