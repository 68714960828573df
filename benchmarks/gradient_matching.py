"""Gradient inversion against a plain loop: ``python benchmarks/gradient_matching.py``.

Inverting Gradients as mibench runs it, all restarts as rows of the same tensors, and the same by hand: one restart
after another, ``torch.autograd.grad(..., create_graph=True)``, the same cosine, total variation, signed Adam and box.
Same model, gradients, starts and iterations, no early dropping; one thread, CPU seconds, medians of rounds in which the
two take turns. Both must give the same images. What a run costs but once (choosing how many rows go together, scoring
the last points) is taken off: the figure is the time of many steps less that of a few, over the same by hand.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from figures import Figure, report, sized
from torch import Tensor
from torch.nn.functional import cross_entropy

from mibench.access import GradientsView, Ledger
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.optim.input_space import Pixels
from mibench.optim.row_adam import Adam
from mibench.targets.convnet import ConvNet
from mibench.targets.lenet import LeNet
from mibench.targets.resnet18 import ResNet18
from mibench.tasks.instance import InstanceGoal

SPEC = InputSpec("image", (3, 32, 32), 10)
TV = 1e-3
EARLY, LATE = sized((20, 100), (1, 2))  # steps between which the memory must not grow

#: Target, restarts, steps, rounds, the most that mibench may take in units of the loop by hand.
CASES: tuple[tuple[type[Classifier], int, int, int, float], ...] = sized(
    (
        (LeNet, 1, 80, 9, 1.05),
        (LeNet, 16, 20, 7, 0.4),
        (LeNet, 64, 8, 5, 0.3),
        (ResNet18, 1, 4, 9, 1.05),
        (ResNet18, 8, 2, 5, 1.0),
        (ConvNet, 1, 1, 5, 1.05),
        (ConvNet, 8, 2, 5, 1.0),
    ),
    ((LeNet, 2, 1, 1, 0.0),),
)


def observed(target: type[Classifier]) -> tuple[GradientsView, Tensor]:
    """Return a view of one message of an untrained model, and the label behind it."""
    torch.manual_seed(0)
    model = target(spec=SPEC).eval()
    x, y = torch.rand(1, *SPEC.shape), torch.tensor([3])
    view = GradientsView.of(model, [], 1, SPEC, Ledger(), torch.device("cpu"))
    message = {name: value.detach() for name, value in view.gradient(x, y).items()}
    return GradientsView.of(model, [message], 1, SPEC, Ledger(), torch.device("cpu")), y


def by_mibench(view: GradientsView, y: Tensor, restarts: int, iterations: int, starts: list[Tensor]) -> Tensor:
    """Return the images of all restarts after the last step; fills ``starts`` with where they began."""
    attack = InvertingGradients(iterations=iterations, tv=TV, restarts=restarts, tolerance=0.0)
    noise, minimise = attack.noise, Adam.minimise
    last: list[Tensor] = []
    attack.noise = lambda *given: starts.append(noise(*given)) or starts[-1]  # type: ignore[method-assign,func-returns-value]
    with patch.object(Adam, "minimise", lambda *given, **more: last.extend(minimise(*given, **more))):
        attack(view, Knowledge(facts={"labels": y}), InstanceGoal(1, 1), seed=0)
    return Pixels.of(view).to_inputs(last[0]).flatten(0, 1)


def by_hand(view: GradientsView, y: Tensor, iterations: int, starts: Tensor) -> Tensor:
    """Return the same images from a plain loop."""
    model, sent = view.model, list(view.messages[0].values())
    parameters, pixels = list(view.parameters.values()), Pixels.of(view)
    results = []
    for start in starts:
        x = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([x], lr=0.1)
        milestones = [int(share * iterations) for share in (3 / 8, 5 / 8, 7 / 8)]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        for _ in range(iterations):
            loss = cross_entropy(model(pixels.to_inputs(x)), y)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            product = sum((g * s).sum() for g, s in zip(gradients, sent, strict=True))
            own = sum(g.square().sum() for g in gradients)
            theirs = sum(s.square().sum() for s in sent)
            variation = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
            objective = 1 - product / (own.sqrt() * theirs.sqrt()) + TV * variation
            (gradient,) = torch.autograd.grad(objective, x)
            x.grad = gradient.sign()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                x.copy_(pixels.project(x))
        results.append(pixels.to_inputs(x.detach()))
    return torch.cat(results)


def seconds(run: Callable[[int], object], steps: int) -> float:
    """Return the CPU seconds of so many steps."""
    start = time.process_time()
    run(steps)
    return time.process_time() - start


def raced(target: type[Classifier], restarts: int, iterations: int, rounds: int, limit: float) -> list[Figure]:
    """Return how far apart the images are, and the ratio of the times."""
    view, y = observed(target)
    starts: list[Tensor] = []
    few, many = 1, 1 + iterations
    ours = by_mibench(view, y, restarts, many, starts)
    apart = float((ours - by_hand(view, y, many, starts[0])).abs().flatten(1).mean(1).median())
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, run in (
            (taken[0], lambda steps: by_mibench(view, y, restarts, steps, [])),
            (taken[1], lambda steps: by_hand(view, y, steps, starts[0])),
        ):
            times.append(seconds(run, many) - seconds(run, few))
    mibench, loop = map(statistics.median, taken)
    name = f"{target.__name__} 32x32, {restarts} restart{'s' * (restarts > 1)}"
    step = f"{loop / iterations / restarts * 1e3:.1f} ms a step"
    return [
        Figure(f"{name}: images apart from those of the loop", apart, "", 0.02),
        Figure(f"{name}: time over a plain loop's ({step})", mibench / loop, "x", limit),
    ]


def measure() -> list[Figure]:
    """Return the ratios, and how much memory grows over the iterations."""
    torch.set_num_threads(1)
    figures = [one for case in CASES for one in raced(*case)]
    figures.append(
        Figure(f"LeNet, 16 restarts: memory after {LATE} steps over that after {EARLY}", growth(), "MB", 2.0)
    )
    return figures


def growth() -> float:
    """Return by how many MB the peak of the process rises between early and late steps."""
    view, y = observed(LeNet)
    by_mibench(view, y, 16, EARLY, [])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    by_mibench(view, y, 16, LATE, [])
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    raise SystemExit(report(measure()))
