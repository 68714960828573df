"""The step of every white-box attack on images against the same work by hand: ``python benchmarks/attack_steps.py``.

64 px, ResNet-18, 8 images a step, weights untrained, one thread. The loops of ``by_hand.py`` get the same weights and
random streams, and must show the victim the same images. After each step of the attack, which runs as in a cell, the
other side takes one, and the median of the ratios of their CPU seconds counts; set-up and selection are not measured.
The memory of an attack is the most bytes of tensors alive at once, to the byte, in the first steps and in later ones.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import by_hand
import torch
from by_hand import Given, Loop
from figures import ARGUMENTS, Figure, report, sized
from live_bytes import LiveBytes
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.base import Attack
from mibench.attacks.deepinversion import DeepInversion
from mibench.attacks.dmmia import Dmmia
from mibench.attacks.emi import Emi
from mibench.attacks.gmi import Gmi, GmiMasked
from mibench.attacks.ifgmi import Ifgmi
from mibench.attacks.kedmi import Kedmi
from mibench.attacks.lomma import Lomma
from mibench.attacks.mi_face import MiFace, MiFaceDenoise
from mibench.attacks.mirror_white import MirrorWhite
from mibench.attacks.patchmi import PatchMi
from mibench.attacks.plgmi import PlgMi
from mibench.attacks.ppa import Ppa
from mibench.attacks.secretgen import SecretGen
from mibench.attacks.vmi import Vmi
from mibench.data import Examples, InputSpec
from mibench.knowledge import Knowledge
from mibench.planning.catalogue import entries
from mibench.precision import computing
from mibench.priors.inpainting_gan import InpaintingGan
from mibench.priors.inversion_gan import InversionGan
from mibench.priors.projection_cgan import ProjectionCgan
from mibench.priors.style_gan import StyleGan
from mibench.priors.wgan_gp import WganGp
from mibench.targets.resnet18 import ResNet18
from mibench.tasks.class_ import ClassGoal
from mibench.tasks.completion import CompletionGoal, hole_mask

SPEC = InputSpec("image", (3, 64, 64), classes=16, mirrored=True)
IMAGES = sized(8, 2)
WARM = sized(2, 0)  # steps before the first that is measured
PAIRS = sized(9, 1)
LIMIT = 1.05
EARLY, LATE = sized((3, 12), (2, 3))  # steps between which the memory must not grow

STYLES = {"latents": sized(64, 4)}
PRIORS = {
    "wgan_gp": WganGp(),
    "inversion_gan": InversionGan(),
    "inpainting_gan": InpaintingGan(width=16),
    "projection_cgan": ProjectionCgan(width=16),
    "style_gan": StyleGan(base=2048, width=128),
}


@dataclass(frozen=True)
class Case:
    """One attack.

    Attributes:
        attack: Makes it for a number of steps.
        loop: The same by hand.
        prior: Name of its prior.
        classes: Classes attacked at once; each has as many images as make up ``IMAGES``.
        companions: Further victims that the attacker holds.
        masked: Whether it completes masked images instead.
    """

    attack: Callable[[int], Attack[Any, Any]]
    loop: Loop
    prior: str | None = None
    classes: int = IMAGES
    companions: int = 0
    masked: bool = False


def vmi(family: Any, draw: Callable[..., tuple[Tensor, Tensor]]) -> Case:
    def attack(n: int) -> Vmi:
        return Vmi(family=family, iterations=n, batch=IMAGES // 2)

    return Case(attack, lambda g: by_hand.vmi(g, draw), "wgan_gp", classes=2)


CASES = {
    "gmi": Case(lambda n: Gmi(iterations=n, restarts=1), by_hand.gmi, "wgan_gp"),
    "gmi_masked": Case(
        lambda n: GmiMasked(iterations=n, restarts=1), by_hand.gmi_masked, "inpainting_gan", masked=True
    ),
    "secretgen": Case(
        lambda n: SecretGen(iterations=n, candidates=2, grid=2), by_hand.secretgen, "inpainting_gan", masked=True
    ),
    "kedmi": Case(lambda n: Kedmi(iterations=n), by_hand.kedmi, "inversion_gan"),
    "vmi, gaussian": vmi("gaussian", by_hand.gaussian),
    "vmi, mixture": vmi("mixture", by_hand.mixture),
    "vmi, flow": vmi("flow", by_hand.flow),
    "plgmi": Case(lambda n: PlgMi(iterations=n), by_hand.plgmi, "projection_cgan"),
    "lomma on gmi": Case(lambda n: Lomma(base=Gmi(iterations=n, restarts=1)), by_hand.lomma, "wgan_gp"),
    "ppa": Case(lambda n: Ppa(iterations=n, candidates=1, selected=None, rounds=0, **STYLES), by_hand.ppa, "style_gan"),
    "dmmia": Case(lambda n: Dmmia(iterations=n, candidates=1, rounds=0, **STYLES), by_hand.dmmia, "style_gan"),
    "mirror_white": Case(lambda n: MirrorWhite(iterations=n, **STYLES), by_hand.mirror_white, "style_gan"),
    "ifgmi": Case(
        lambda n: Ifgmi(stages=2, first_steps=1, later_steps=max(1, n - 1), starts=None, **STYLES),
        by_hand.ifgmi,
        "style_gan",
    ),
    "patchmi": Case(
        lambda n: PatchMi(iterations=n, batch_size=IMAGES // 2, generator_width=16, discriminator_width=64),
        by_hand.patchmi,
        classes=2,
    ),
    "emi": Case(
        lambda n: Emi(iterations=n, batch_size=IMAGES, candidates=1, width=16), by_hand.emi, classes=2, companions=1
    ),
    "deepinversion": Case(lambda n: DeepInversion(iterations=n, batch=IMAGES), by_hand.deepinversion),
    "mi_face": Case(lambda n: MiFace(iterations=n), by_hand.mi_face),
    "mi_face_denoise": Case(lambda n: MiFaceDenoise(iterations=n, every=3), lambda g: by_hand.mi_face(g, coded=True)),
}


class Run:
    """An attack on an untrained victim, with something to do after each of its steps.

    Args:
        case: The attack.
        steps: Its length.
        images: Images per step.
    """

    def __init__(self, case: Case, steps: int, images: int = IMAGES) -> None:
        torch.manual_seed(0)
        classes = min(case.classes, images)
        targets, samples = torch.arange(classes), max(1, images // case.classes)
        prior = None if case.prior is None else PRIORS[case.prior].network(SPEC).eval().requires_grad_(False)
        public = Examples(torch.rand(32, *SPEC.shape), torch.zeros(32, dtype=torch.long))
        self.view, *others = (
            WhiteBoxView.of(ResNet18(spec=SPEC).eval(), SPEC, Ledger(), torch.device("cpu"))
            for _ in range(1 + case.companions)
        )
        self.knowledge = Knowledge(
            public_data=public,
            latent_prior=prior,
            facts={"labels": targets} if case.masked else {},
            ensemble=lambda _: tuple(others),
        )
        self.attack = case.attack(steps)
        self.own = self.attack.untrained(self.view, self.knowledge, 0).eval()
        hole = hole_mask("centre", *SPEC.shape[1:])
        masked = CompletionGoal(public.x[:classes].masked_fill(hole, 0.0), hole) if case.masked else None
        self.goal = masked or ClassGoal(targets, samples)
        apart = copy.deepcopy((prior, self.own))  # which the attack may lay out in another way
        given = Given(self.attack, self.view, *apart, public.x, targets, samples, others, masked)
        self.by_hand = case.loop(given)

    def go(self, after: Callable[[], None], precision: str = "float32") -> None:
        """Run the attack in a precision and call ``after``, in float32, after every step."""
        stepping = getattr(self.attack, "base", self.attack)
        steps = stepping.steps

        def watched(count: int, what: str = "") -> Iterator[int]:
            for step in steps(count, what):
                yield step
                if what != "candidates":  # looked at before the first step
                    with computing("float32", self.view.device):
                        after()

        stepping.steps = watched
        self.attack(self.view, self.knowledge, self.goal, seed=0, networks=self.own, precision=precision)


def compare(case: Case) -> tuple[float, float]:
    """Return the relative difference of what the victim is shown in the third step, and the floating-point operations.

    The difference is relative to how far the attack has moved since the first step.
    """
    run, ours, theirs, shown = Run(case, 3), [], [], []
    counter = FlopCounterMode(display=False)

    def note(_: Any, inputs: tuple[Tensor]) -> None:
        if torch.is_grad_enabled():
            shown.append(inputs[0].detach())

    def after() -> None:
        ours.append(torch.cat(shown))
        shown.clear()
        with counter if len(ours) == 3 else nullcontext():
            theirs.append(next(run.by_hand))

    run.view.model.normalise.register_forward_pre_hook(note)
    run.go(after)
    return float((ours[2] - theirs[2]).abs().max() / (ours[2] - ours[0]).abs().max()), counter.get_total_flops() / 1e9


def race(case: Case, precision: str = "float32") -> tuple[list[float], list[float]]:
    """Return the CPU seconds of the attack's steps in a precision and of those by hand, in float32."""
    run, mine, theirs = Run(case, WARM + PAIRS), [], []
    clock, start = time.process_time, 0.0

    def after() -> None:
        nonlocal start
        middle = clock()
        next(run.by_hand)
        end = clock()
        mine.append(middle - start)
        theirs.append(end - middle)
        start = clock()

    run.go(after, precision)
    return mine[WARM : WARM + PAIRS], theirs[WARM : WARM + PAIRS]


def growth(case: Case) -> float:
    """Return by how many MiB the memory of the late steps exceeds that of the early ones, with two images."""
    run, peaks = Run(case, LATE, images=2), []

    def after() -> None:
        gc.collect()
        peaks.append(live.peak)
        live.peak = live.now

    with LiveBytes() as live:
        run.go(after)
    return (max(peaks[EARLY:LATE]) - max(peaks[1:EARLY])) / 2**20  # the first step's holds the set-up


def measure(names: list[str] | None = None) -> list[Figure]:
    torch.set_num_threads(1)
    missing = {
        entry.name
        for entry in entries("attack")
        if entry.card.task in ("class", "completion")
        and "white_box" in entry.card.access
        and "image" in entry.card.modalities
    } - {name.split()[0].strip(",") for name in CASES}
    figures = [
        Figure(" ".join(["white-box attacks on images without a loop by hand:", *sorted(missing)]), len(missing), "", 0)
    ]
    chosen = names or list(CASES)
    raced = sized(chosen, chosen[:1])
    for name in chosen:
        case = CASES[name]
        off, flops = compare(case)
        figures += [
            Figure(f"{name} step, by hand: floating-point operations", flops, "GFLOP"),
            Figure(f"{name}, images of the third step: relative difference", off, "", 1e-3),
        ]
        if name not in raced:
            continue
        mine, theirs = race(case)
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        figures += [
            Figure(f"{name} step, by hand: CPU", 1000 * statistics.median(theirs), "ms"),
            Figure(f"{name} step, mibench: CPU", 1000 * statistics.median(mine), "ms"),
            Figure(f"{name} step, mibench / by hand", ratio, "x", LIMIT),
            Figure(
                f"{name}, steps {EARLY + 1} to {LATE}: memory beyond that of the first {EARLY}", growth(case), "MB", 0
            ),
        ]
    return figures


if __name__ == "__main__":
    raise SystemExit(report(measure(ARGUMENTS)))
