"""Gradient matching as one batched problem: every message and every restart is a row of the same tensors.

A *problem* is one search: one restart for one message. Rows never influence each other, so that the result for a
message does not depend on how many others there are. Each step computes the objective of ``at_once`` rows together
(small models: many, through :func:`torch.func.vmap`; large ones: one, in plain autograd, which is faster there and
needs the memory of one). Rows whose message is matched to ``tolerance``, or whose restart is hopeless, are dropped on
the way; between two such looks nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mibench.access import GradientsView, uncounted
from mibench.model import Normalise
from mibench.optim.gradient_distance import Gradients
from mibench.optim.selection import take_best

#: Returns of some problems the objective that is descended, and the score by which results are compared (lower is
#: better), each of shape ``(n,)``, from the problems and their rows of the variables. What may follow, each of shape
#: ``(n, ...)``, is kept as the result in place of the variables (images in place of a generator's weights).
Objective = Callable[..., tuple[Tensor, ...]]

#: Floating point operations of one problem's forward pass up to which problems are batched on a CPU.
SMALL = 2e7

#: Trainable parameters up to which they are: of more, a gradient per problem is memory traffic and no arithmetic.
FEW = 100_000

#: Problems that are computed together at the most.
TOGETHER = 64


@dataclass(frozen=True)
class Problems:
    """Rows of a search.

    Attributes:
        messages: Number of messages.
        restarts: Searches per message.
        at_once: Rows that are computed together.
    """

    messages: int
    restarts: int
    at_once: int

    @property
    def rows(self) -> Tensor:
        """All problems, those of one message side by side, shape ``(messages * restarts,)``."""
        return torch.arange(self.messages * self.restarts)

    def message(self, rows: Tensor) -> Tensor:
        """Return the message of each problem."""
        return rows // self.restarts


def at_once(view: GradientsView) -> int:
    """Return how many problems are computed together: a function of model, batch and kind of device alone."""
    x = torch.zeros(view.batch_size, *view.spec.shape, device=view.device)
    with uncounted(view.ledger), FlopCounterMode(display=False) as counter, torch.no_grad():
        view.model(x)
    forward = counter.get_total_flops()
    if view.device.type == "cpu":
        few = sum(value.numel() for value in view.parameters.values()) <= FEW
        return TOGETHER if few and forward <= SMALL else 1
    return max(1, min(TOGETHER, int(TOGETHER * 50 * SMALL / max(1, forward))))


class Sent:
    """The messages, by problem.

    Args:
        messages: What was sent, one mapping of parameter name to tensor per message.
        problems: The rows of the search.
    """

    def __init__(self, messages: Sequence[Gradients], problems: Problems) -> None:
        self.stacked = {name: torch.stack([one[name] for one in messages]) for name in messages[0]}
        self.problems = problems

    def of(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the messages of ``rows``, shape ``(n, ...)``; one row where all are of the same message."""
        own = self.problems.message(rows)
        first = int(own[0])
        if bool((own == first).all()):
            return {name: value[first : first + 1] for name, value in self.stacked.items()}
        return {name: value[own.to(value.device)] for name, value in self.stacked.items()}


@dataclass
class Found:
    """The best of every problem so far.

    Attributes:
        problems: The rows.
        values: Copies of the variables, or of what the objective keeps of them, each of shape ``(problems, ...)``.
        scores: Their scores, shape ``(problems,)``; infinite until a finite one was met.
    """

    problems: Problems
    values: list[Tensor] = field(default_factory=list)
    scores: Tensor = field(default_factory=lambda: torch.empty(0))

    def offer(self, rows: Tensor, variables: Sequence[Tensor], scores: Tensor) -> None:
        """Take the rows whose score is lower than their best; a NaN never is."""
        total = len(self.problems.rows)
        if not self.values:
            self.values = [variable.detach().new_zeros(total, *variable.shape[1:]) for variable in variables]
            self.scores = scores.new_full((total,), torch.inf)
        if len(rows) == total:
            for position, variable in enumerate(variables):
                self.values[position], best = take_best(self.values[position], self.scores, variable.detach(), scores)
            self.scores = best
            return
        places = rows.to(scores.device)
        for position, variable in enumerate(variables):
            kept = self.values[position]
            chosen, best = take_best(kept[places], self.scores[places], variable.detach(), scores)
            self.values[position] = kept.index_copy(0, places, chosen)
        self.scores = self.scores.index_copy(0, places, best)

    def of_messages(self) -> tuple[list[Tensor], Tensor]:
        """Return each message's best restart: the variables ``(messages, ...)`` and its score ``(messages,)``."""
        table = self.scores.reshape(self.problems.messages, self.problems.restarts)
        scores, restart = table.min(1)
        rows = torch.arange(len(restart), device=restart.device) * self.problems.restarts + restart
        return [value[rows] for value in self.values], scores


@dataclass(frozen=True)
class Dropping:
    """Which problems are no longer worth a step.

    Attributes:
        tolerance: A message of which one restart has a lower score is done.
        settled: A message of which one restart has a lower score goes on with that one alone.
        halve_at: Shares of the steps after which the worse half of every message's remaining restarts is dropped
            (successive halving: Jamieson and Talwalkar, AISTATS 2016); none keeps all.
        look: Steps between two looks at the tolerance.
    """

    tolerance: float = 0.0
    settled: float = 0.0
    halve_at: Sequence[float] = ()
    look: int = 20

    def survivors(self, found: Found, rows: Tensor, step: int, steps: int) -> Tensor:
        """Return which of ``rows`` go on after ``step`` of ``steps``, a mask on the CPU."""
        halving = any(step == math.ceil(share * steps) for share in self.halve_at) and found.problems.restarts > 1
        if not halving and (step % self.look or max(self.tolerance, self.settled) <= 0):
            return torch.ones(len(rows), dtype=torch.bool)
        scores = found.scores.cpu().reshape(found.problems.messages, -1)
        alive = torch.zeros(scores.numel(), dtype=torch.bool)
        alive[rows] = True
        alive = alive.reshape(scores.shape)
        lowest = scores.nan_to_num(nan=torch.inf).min(1, keepdim=True)
        alive &= lowest.values >= self.tolerance
        first = torch.zeros_like(alive).scatter(1, lowest.indices, True)
        alive &= first | (lowest.values >= self.settled)
        if halving:
            standing = torch.where(alive, scores.nan_to_num(nan=torch.inf), torch.inf).argsort(1).argsort(1)
            alive &= standing < (alive.sum(1, keepdim=True) + 1) // 2
        return alive.flatten()[rows]


def evaluate(
    objective: Objective, rows: Tensor, variables: Sequence[Tensor], at_once: int
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Return objective, score, gradients and what is to be kept of every row, ``at_once`` rows at a time."""
    losses, scores, kept = [], [], []
    gradients: list[list[Tensor]] = [[] for _ in variables]
    for first, part in _parts(rows, at_once):
        own = [one.detach()[first : first + len(part)].requires_grad_(True) for one in variables]
        loss, score, *result = objective(part, *own)
        for collected, gradient in zip(gradients, torch.autograd.grad(loss.sum(), own), strict=True):
            collected.append(gradient)
        losses.append(loss.detach())
        scores.append(score.detach())
        kept.append([one.detach() for one in result])
    results = [torch.cat(one) for one in zip(*kept, strict=True)] or list(variables)
    return torch.cat(losses), torch.cat(scores), [torch.cat(one) for one in gradients], results


@dataclass(frozen=True)
class Adam:
    """Adam on every row, with the schedules that gradient inversion uses.

    Attributes:
        iterations: Steps.
        lr: Step size.
        signed: Whether Adam sees the sign of the gradient (Geiping et al., 2020).
        decay_at: Shares of the steps after which the step size falls to a tenth.
        warmup: First steps over which it rises from 0.
        cosine: Whether it falls along a half cosine to 0 after the warm-up.
        rise: Share of the steps over which it rises from 0.
        fall: Share of the steps over which it falls to 0 at the end, along a half cosine.
        langevin: Standard deviation, in step sizes, of the noise added to the gradient (Yin et al., 2021).
        betas: Adam's decay rates.
    """

    iterations: int
    lr: float
    signed: bool = False
    decay_at: Sequence[float] = ()
    warmup: int = 0
    cosine: bool = False
    rise: float = 0.0
    fall: float = 0.0
    langevin: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def rate(self, step: int) -> float:
        """Return the step size of ``step``."""
        rate = self.lr * 0.1 ** sum(step >= int(share * self.iterations) for share in self.decay_at)
        if step < self.warmup:
            rate *= (step + 1) / self.warmup
        elif self.cosine:
            rate *= 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.iterations - self.warmup)))
        done = step / self.iterations
        if done < self.rise:
            rate *= done / self.rise
        if 1 - done < self.fall:
            rate *= 0.5 * (1 - math.cos(math.pi * (1 - done) / self.fall))
        return rate

    def minimise(
        self,
        objective: Objective,
        variables: Sequence[Tensor],
        found: Found,
        steps: Iterable[int],
        *,
        dropping: Dropping = Dropping(),
        project: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]] | None = None,
        reshape: Callable[[list[Tensor]], list[Tensor]] | None = None,
        draws: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Descend in ``variables``, which are copied, offer every point to ``found``, and return the last ones.

        Args:
            objective: The objective.
            variables: Where to start, each of shape ``(problems, ...)``.
            found: Where the best points are kept.
            steps: An attack's own ``self.steps(iterations)``.
            dropping: Which problems end early.
            project: Returns the variables of ``rows`` brought back to where they may be, after every step.
            reshape: Returns what the gradients are replaced by before Adam sees them.
            draws: Random generator of the Langevin noise, on the variables' device.

        Returns:
            The variables of all problems as they were when each ended.
        """
        rows = found.problems.rows
        last = [variable.detach().clone() for variable in variables]
        moving = [variable.clone() for variable in last]
        moments = [[torch.zeros_like(one) for one in moving] for _ in range(2)]
        for step in steps:
            _, scores, gradients, kept = evaluate(objective, rows, moving, found.problems.at_once)
            found.offer(rows, kept, scores)
            rate = self.rate(step)
            if self.langevin and draws is not None:
                gradients = [
                    g + self.langevin * rate * torch.randn(g.shape, generator=draws, device=g.device) for g in gradients
                ]
            if reshape is not None:
                gradients = reshape(gradients)
            if self.signed:
                gradients = [gradient.sign() for gradient in gradients]
            self._move(moving, gradients, moments, rate, step + 1)
            if project is not None:
                moving = list(project(rows, moving))
            going = dropping.survivors(found, rows, step + 1, self.iterations)
            if not bool(going.all()):
                here = going.to(moving[0].device)
                for whole, part in zip(last, moving, strict=True):
                    whole[rows.to(whole.device)] = part
                moving = [one[here] for one in moving]
                moments = [[one[here] for one in each] for each in moments]
                rows = rows[going]
            if not len(rows):
                return last
        for whole, part in zip(last, moving, strict=True):
            whole[rows.to(whole.device)] = part
        for first, part in _parts(rows, found.problems.at_once):
            own = [one[first : first + len(part)].detach().requires_grad_(True) for one in moving]
            _, scores, *result = objective(part, *own)
            found.offer(part, result or own, scores.detach())
        return last

    def _move(
        self, moving: list[Tensor], gradients: Sequence[Tensor], moments: list[list[Tensor]], rate: float, count: int
    ) -> None:
        first, second = self.betas
        for value, gradient, mean, square in zip(moving, gradients, *moments, strict=True):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            size = (square / (1 - second**count)).sqrt_().add_(1e-8)
            value.addcdiv_(mean, size, value=-rate / (1 - first**count))


def _parts(rows: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(first, rows[first : first + size]) for first in range(0, len(rows), size)]


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS on every row (Liu and Nocedal, 1989), in the compact form of Byrd, Nocedal and Schnabel (1994).

    Attributes:
        iterations: Outer steps.
        inner: Moves inside each.
        lr: Step length.
        history: Pairs of differences remembered.
        line_search: Whether a step is halved until the objective falls (Armijo), at most ten times.
    """

    iterations: int
    inner: int
    lr: float
    history: int
    line_search: bool = False

    def minimise(
        self,
        objective: Objective,
        variables: Sequence[Tensor],
        found: Found,
        steps: Iterable[int],
        *,
        dropping: Dropping = Dropping(),
    ) -> None:
        """Descend in ``variables`` and offer every point to ``found``.

        A row ends where its objective is no longer finite and where a step changes nothing. Arguments are those of
        :meth:`Adam.minimise`; ``dropping`` looks after every outer step.
        """
        shapes = [variable.shape[1:] for variable in variables]
        sizes = [shape.numel() for shape in shapes]
        rows = found.problems.rows
        x = torch.cat([variable.detach().flatten(1) for variable in variables], 1)
        memory = _Memory(self.history, x)

        def look_at(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            parts = [part.reshape(-1, *shape) for part, shape in zip(x.split(sizes, 1), shapes, strict=True)]
            losses, scores, gradients, kept = evaluate(objective, rows, parts, found.problems.at_once)
            found.offer(rows, kept, scores)
            return losses, torch.cat([gradient.flatten(1) for gradient in gradients], 1)

        loss, gradient = look_at(rows, x)
        for step in steps:
            before = x
            for _ in range(self.inner):
                direction, length = memory.direction(gradient, self.lr)
                slope = (direction * gradient).sum(1)
                good = (slope < 0) & loss.isfinite()
                direction = torch.where(good[:, None], direction, 0.0)
                reached = x + length[:, None] * direction
                new_loss, new_gradient = look_at(rows, reached)
                if self.line_search:
                    for _ in range(10):
                        short = ~(new_loss <= loss + 1e-4 * length * slope) & good
                        if not bool(short.any()):
                            break
                        length = torch.where(short, length / 2, length)
                        reached = x + length[:, None] * direction
                        new_loss, new_gradient = look_at(rows, reached)
                    stuck = ~(new_loss <= loss) & good  # at the precision of the numbers
                    reached = torch.where(stuck[:, None], x, reached)
                    new_loss = torch.where(stuck, loss, new_loss)
                    new_gradient = torch.where(stuck[:, None], gradient, new_gradient)
                memory.remember(reached - x, new_gradient - gradient)
                x, loss, gradient = reached, new_loss, new_gradient
            going = dropping.survivors(found, rows, (step + 1) * dropping.look, self.iterations * dropping.look)
            going &= (loss.isfinite() & (x != before).any(1)).cpu()
            if not bool(going.all()):
                kept = going.to(x.device)
                x, loss, gradient, rows = x[kept], loss[kept], gradient[kept], rows[going]
                memory.keep(kept)
            if not len(rows):
                return


class _Memory:
    """The differences that L-BFGS remembers, of every row."""

    def __init__(self, history: int, like: Tensor) -> None:
        rows, size = like.shape
        self.moves, self.changes = (like.new_zeros(rows, 0, size) for _ in range(2))
        self.products, self.squares = (like.new_zeros(rows, 0, 0, dtype=torch.float64) for _ in range(2))
        self.scale = like.new_ones(rows)
        self.history, self.slot = history, 0
        self.begun = False

    def keep(self, kept: Tensor) -> None:
        """Forget the other rows."""
        for name in ("moves", "changes", "products", "squares", "scale"):
            setattr(self, name, getattr(self, name)[kept])

    def remember(self, move: Tensor, change: Tensor) -> None:
        """Take a step and the change of the gradient along it; where the curvature is not positive, an empty pair."""
        along = (move * change).sum(1)
        good = (along > 1e-10)[:, None]
        move, change = torch.where(good, move, 0.0), torch.where(good, change, 0.0)
        self.scale = torch.where(good[:, 0], along / change.square().sum(1).clamp_min(1e-30), self.scale)
        filled = self.moves.shape[1]
        if filled < self.history:
            self.moves = torch.cat([self.moves, move[:, None]], 1)
            self.changes = torch.cat([self.changes, change[:, None]], 1)
            self.products, self.squares = (_grown(one) for one in (self.products, self.squares))
            self.slot = filled
        else:
            self.slot = (self.slot + 1) % self.history
            self.moves[:, self.slot], self.changes[:, self.slot] = move, change
        self.products[:, :, self.slot] = (self.moves @ change[..., None])[..., 0].double()
        self.products[:, self.slot] = (self.changes @ move[..., None])[..., 0].double()
        squares = (self.changes @ change[..., None])[..., 0].double()
        self.squares[:, :, self.slot] = self.squares[:, self.slot] = squares
        self.begun = True

    def direction(self, gradient: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Return where every row goes and how far: the gradient, short, before anything is remembered."""
        if not self.begun:
            return -gradient, lr * (1 / gradient.abs().sum(1)).clamp_max(1)
        filled = self.moves.shape[1]
        order = (torch.arange(filled, device=gradient.device) + self.slot + 1) % filled  # the oldest pair first
        products = self.products[:, order][:, :, order]
        diagonal = products.diagonal(dim1=1, dim2=2)
        upper = products.triu() + torch.diag_embed((diagonal == 0).double())
        along = (self.moves @ gradient[..., None])[:, order].double()
        across = self.scale[:, None, None].double() * (self.changes @ gradient[..., None])[:, order].double()
        p = torch.linalg.solve_triangular(upper, along, upper=True)
        squares = self.scale[:, None, None].double() * self.squares[:, order][:, :, order]
        q = torch.linalg.solve_triangular(
            upper.transpose(1, 2), diagonal[..., None] * p + squares @ p - across, upper=False
        )
        back = order.argsort()
        p, q = p[:, back].to(gradient.dtype), q[:, back].to(gradient.dtype)
        step = self.scale[:, None] * gradient
        step = (
            step
            + (q.transpose(1, 2) @ self.moves)[:, 0]
            - self.scale[:, None] * (p.transpose(1, 2) @ self.changes)[:, 0]
        )
        return -step, gradient.new_full((len(gradient),), lr)


def _grown(square: Tensor) -> Tensor:
    """Return a square matrix per row with one row and one column of zeros more."""
    return torch.nn.functional.pad(square, (0, 1, 0, 1))


class InputSpace(Protocol):
    """What is searched in place of images."""

    def images(self, u: Tensor, /) -> Tensor:
        """Return the images ``(n, batch, C, H, W)`` of points ``(n, batch, ...)``."""


@dataclass(frozen=True)
class Pixels:
    """The space of the model's own inputs: images in [0, 1] minus the mean, over the standard deviation, per channel.

    Attributes:
        mean: Shape ``(C, 1, 1)``, or ``()`` where the model takes images as they are.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, view: GradientsView) -> Pixels:
        """Return the input space of the view's model."""
        normalise = view.model.normalise
        for inside in ("inner", "scale"):  # behind a defense's input hook, or of a model of one's own
            normalise = getattr(normalise, inside, normalise)
        if isinstance(normalise, nn.Sequential):  # of a target that flattens what it has normalised
            normalise = normalise[0]
        if isinstance(normalise, Normalise):
            return cls(normalise.mean[0], normalise.std[0])
        return cls(torch.zeros((), device=view.device), torch.ones((), device=view.device))

    def images(self, u: Tensor) -> Tensor:
        """Return the images of inputs ``(..., C, H, W)``."""
        return u * self.std + self.mean

    def inputs(self, images: Tensor) -> Tensor:
        """Return the inputs of images ``(..., C, H, W)``."""
        return (images - self.mean) / self.std

    def boxed(self, u: Tensor) -> Tensor:
        """Return inputs clamped to what images in [0, 1] can give."""
        return torch.maximum(torch.minimum(u, (1 - self.mean) / self.std), -self.mean / self.std)
