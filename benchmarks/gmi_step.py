"""The attack step of ``gmi`` against the same work written by hand: ``python benchmarks/gmi_step.py``.

64 px, ResNet-18, 16 latents, the WGAN-GP of the prior, one thread, weights untrained. The hand-written side is
torchvision's own ResNet-18, plain Sequentials and one loop, all parameters frozen; it is given the same weights and
starts from the same latents, and must end at the same ones. Blocks of steps alternate in one process, and CPU seconds
are compared.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import torch
from figures import Figure, report
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.gmi import Gmi
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.priors.wgan_gp import WganGp, WganGpNetworks
from mibench.targets.resnet18 import ResNet18
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (3, 64, 64), classes=16)
LABELS = torch.arange(16)
BLOCK = 4  # steps measured before the other side's turn
PAIRS = 9
LIMIT = 1.05


class HandWritten:
    """GMI without mibench: networks as anyone would write them, and one loop."""

    def __init__(self) -> None:
        wide = (512, 256, 128, 64)
        up: list[nn.Module] = [nn.Linear(100, 512 * 16, bias=False), nn.BatchNorm1d(512 * 16), nn.ReLU()]
        up.append(nn.Unflatten(1, (512, 4, 4)))
        for before, after in pairwise(wide):
            up += [nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.generator = nn.Sequential(*up, nn.ConvTranspose2d(64, 3, 5, 2, 2, 1), nn.Sigmoid())
        down: list[nn.Module] = [nn.Conv2d(3, 64, 5, 2, 2), nn.LeakyReLU(0.2)]
        for before, after in pairwise(wide[::-1]):
            down += [nn.Conv2d(before, after, 5, 2, 2), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(*down, nn.Conv2d(512, 1, 4))
        self.target = resnet18(num_classes=SPEC.classes)

    def load(self, target: nn.Module, prior: WganGpNetworks) -> None:
        """Takes the weights of mibench's networks, layer by layer in the order of the forward pass, and freezes."""
        for ours, theirs in (
            (self.generator, nn.ModuleList([prior.seed_map, prior.grow])),
            (self.critic, prior.judge),
            (self.target, nn.ModuleList([target.stages, target.head])),
        ):
            state = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
            ours.load_state_dict(state)
            ours.eval().requires_grad_(False)

    def gradient(self, z: Tensor) -> Tensor:
        images = self.generator(z)
        identity = cross_entropy(self.target((images - 0.5) / 0.5), LABELS, reduction="sum")
        (gradient,) = torch.autograd.grad((100 * identity - self.critic(images).sum()) / 100, z)
        return gradient

    def step(self, z: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        ahead = 0.9 * velocity - 0.02 * self.gradient(z.requires_grad_(True))
        return (z.detach() - 0.9 * velocity + 1.9 * ahead).clamp(-1, 1), ahead


class Watched(LatentPrior):
    """mibench's prior, which notes the CPU time at which the attack asks for images: once per step and once after."""

    name = "wgan_gp"

    def __init__(self, networks: WganGpNetworks) -> None:
        super().__init__()
        self.networks = networks
        self.latent_dim = networks.latent_dim
        self.times: list[float] = []
        self.latents: list[Tensor] = []

    def generate(self, z: Tensor) -> Tensor:
        self.times.append(time.process_time())
        self.latents.append(z.detach())
        return self.networks.generate(z)

    def critic(self, x: Tensor) -> Tensor:
        return self.networks.critic(x)


def attacked(view: WhiteBoxView, prior: Watched, iterations: int) -> list[Tensor]:
    """Runs the attack and returns the latents before every step and after the last."""
    prior.times, prior.latents = [], []
    goal = ClassGoal(LABELS, samples=1)
    Gmi(iterations=iterations, restarts=1)(view, Knowledge(latent_prior=prior), goal, seed=0)
    return prior.latents


def by_hand(hand: HandWritten, z: Tensor, iterations: int) -> Tensor:
    """Runs the loop and returns the last latents."""
    z, velocity = z.clone(), torch.zeros_like(z)
    for _ in range(iterations):
        z, velocity = hand.step(z, velocity)
    return z


def difference(ours: Tensor, theirs: Tensor, start: Tensor) -> float:
    """Returns the largest difference of two results, relative to the largest move that the box did not cut."""
    inside = (start.abs() < 1) & (ours.abs() < 1)
    return float((ours - theirs).abs().max() / (ours - start)[inside].abs().max())


def measure() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = ResNet18(spec=SPEC).eval()
    networks = WganGp().network(SPEC).eval().requires_grad_(False)
    hand = HandWritten()
    hand.load(target, networks)
    view = WhiteBoxView.of(target, SPEC, Ledger(), torch.device("cpu"))
    prior = Watched(networks)

    ours = attacked(view, prior, 2)
    off = difference(ours[-1], by_hand(hand, ours[0], 2), ours[0])
    with FlopCounterMode(display=False) as counter:
        hand.gradient(ours[0].clone().requires_grad_(True) * 1)  # the counter wants no leaf at a module's door

    seconds: dict[str, list[float]] = {"attack": [], "hand": []}
    for _ in range(PAIRS):
        attacked(view, prior, BLOCK)
        seconds["attack"].append((prior.times[BLOCK] - prior.times[0]) / BLOCK)
        start = time.process_time()
        by_hand(hand, ours[0], BLOCK)
        seconds["hand"].append((time.process_time() - start) / BLOCK)
    ratios = [a / b for a, b in zip(seconds["attack"], seconds["hand"], strict=True)]
    return [
        Figure("gmi step, hand-written: floating-point operations", counter.get_total_flops() / 1e9, "GFLOP"),
        Figure("gmi step, hand-written: CPU", statistics.median(seconds["hand"]), "s"),
        Figure("gmi step, mibench: CPU", statistics.median(seconds["attack"]), "s"),
        Figure("gmi step, latents after two steps: relative difference of the two", off, "", 1e-3),
        Figure("gmi step, mibench / hand-written", statistics.median(ratios), "x", LIMIT),
    ]


if __name__ == "__main__":
    raise SystemExit(report(measure()))
