"""The contract of an attack: the base class measures, the method only reconstructs."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from mibench.access import GradientsView, Server, View, WhiteBoxView
from mibench.card import AttackCard
from mibench.data import Examples, InputSpec
from mibench.errors import QueryRefused
from mibench.knowledge import Knowledge
from mibench.optim.identity import IdentityLoss, identity_loss
from mibench.options import Options
from mibench.precision import computing
from mibench.seeding import derive, generator, seeded
from mibench.storage.progress import progress
from mibench.tasks import get_task
from mibench.tasks.attribute import AttributeGoal
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal
from mibench.tasks.completion import CompletionGoal
from mibench.tasks.instance import InstanceGoal

#: What a method file imports from here: the contract, and the types that it is written in.
__all__ = [
    "Attack",
    "AttackCard",
    "AttackResult",
    "AttributeGoal",
    "ClassGoal",
    "ClassSearch",
    "CompletionGoal",
    "GoalT",
    "Identity",
    "InstanceGoal",
    "Knowledge",
    "Reconstruction",
    "Server",
    "ViewT",
    "failures_blanked",
]

log = logging.getLogger("mibench")

ViewT = TypeVar("ViewT", bound=View)
GoalT = TypeVar("GoalT")


@dataclass(frozen=True)
class AttackResult:
    """What an attack returned and what it cost, both measured by the base class.

    Attributes:
        reconstruction: The answer, on the CPU.
        ledger: Queries and gradients by phase.
        seconds: Wall time of ``prepare`` and ``reconstruct``.
        peak_memory_mb: Highest memory in MiB: of the device on CUDA, of the process elsewhere.
        stopped: Why the attack ended early; empty where it did not.
        customer: What the victim's defense said of the attacker (queries refused); added by the cell.
    """

    reconstruction: Reconstruction
    ledger: Mapping[str, Mapping[str, int]]
    seconds: float
    peak_memory_mb: float
    stopped: str = ""
    customer: Mapping[str, float] = field(default_factory=dict)


class Attack(Options, ABC, Generic[ViewT, GoalT]):
    """An attack.

    A subclass has a literal ``card``, keyword-only hyper-parameters at the paper's defaults, and
    ``reconstruct``. Where it trains models of its own it also writes ``networks`` (their architecture) and
    ``prepare`` (their training); the cell stores them with what their training cost.

    Attributes:
        length: The options that count steps, a literal: how many its search takes and its own models are trained, and
            after how many a schedule changes. Doubled together they are the same search at twice its length. Neither
            how many starts it has nor a rule that ends it early (``patience``) is part of it. Empty where nothing is
            searched; None where the attack does not say.
    """

    card: ClassVar[AttackCard]
    length: ClassVar[tuple[str, ...] | None] = None
    block: ClassVar[str] = "attack"

    _best: Callable[[], Reconstruction] | None = field(init=False, repr=False, default=None)
    _seed: int = field(init=False, repr=False, default=0)
    _label: str = field(init=False, repr=False, default="")
    _leader: Attack[Any, Any] | None = field(init=False, repr=False, default=None)

    def server(self, public: Examples | None, spec: InputSpec, seed: int) -> Server:
        """Return the server that the attack plants, asked for before the victim is trained, if its card says so.

        Args:
            public: The attacker's public examples; None where it has none.
            spec: Public facts of the input.
            seed: Seed of its draws.
        """
        return Server()

    def networks(self, view: ViewT, knowledge: Knowledge) -> nn.ModuleDict:
        """Return the attack's own models, untrained; none by default."""
        return nn.ModuleDict()

    def prepare(self, networks: nn.ModuleDict, view: ViewT, knowledge: Knowledge) -> None:
        """Train the attack's own models in place."""

    @abstractmethod
    def reconstruct(self, view: ViewT, knowledge: Knowledge, goal: GoalT, networks: nn.ModuleDict) -> Reconstruction:
        """Return the answer to ``goal`` from what ``view`` and ``knowledge`` give."""

    @final
    def __call__(
        self,
        view: ViewT,
        knowledge: Knowledge,
        goal: GoalT,
        *,
        seed: int,
        networks: nn.ModuleDict | None = None,
        label: str = "attack",
        precision: str = "float32",
    ) -> AttackResult:
        """Run the attack: seed, time, count, keep the best so far, and check what comes back.

        Args:
            view: What the attacker sees.
            knowledge: What the attacker brings.
            goal: What is to be reconstructed.
            seed: Seed of every random draw of the attack.
            networks: The attack's own models when they are trained already; otherwise they are trained here. The
                search finds them frozen.
            label: Name of the progress bar.
            precision: What networks compute in, ``float32`` or ``bfloat16``; at access ``gradients`` always float32.
                The answer is float32.

        Raises:
            ValueError: If the method returns something its task does not allow.
        """
        task = get_task(self.card.task)
        self._best, self._seed, self._label = None, derive(seed, "attack", self.card.name), label
        stopped = ""
        cuda = view.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(view.device)
        start = time.perf_counter()
        with seeded(self._seed):
            try:
                if networks is None:
                    networks = self.trained(view, knowledge, seed, precision)
                networks.requires_grad_(False)
                with self._computing(precision, view, knowledge, networks):
                    answer = self.reconstruct(view, knowledge, goal, networks)
            except QueryRefused as refusal:
                stopped = str(refusal)
                log.warning("The attack ended early: %s", refusal)
                answer = self._best() if self._best is not None else task.blank(goal, view.spec)
        answer = failures_blanked(answer.cpu(), task.blank(goal, view.spec))
        if cuda:
            torch.cuda.synchronize(view.device)
        seconds = time.perf_counter() - start
        task.check(answer, goal, view.spec)
        return AttackResult(answer, view.ledger.state(), seconds, _peak_memory_mb(view.device), stopped)

    @final
    def untrained(self, view: ViewT, knowledge: Knowledge, seed: int) -> nn.ModuleDict:
        """Return the attack's own models on the view's device, with weights that depend on the seed alone."""
        with seeded(derive(seed, "networks", self.card.name)):
            return self.networks(view, knowledge).to(view.device)

    @final
    def trained(self, view: ViewT, knowledge: Knowledge, seed: int, precision: str = "float32") -> nn.ModuleDict:
        """Return the attack's own models, trained, in evaluation mode; queries are booked under ``prepare``."""
        self._seed = derive(seed, "attack", self.card.name)
        networks = self.untrained(view, knowledge, seed)
        with (
            seeded(derive(self._seed, "prepare")),
            view.phase("prepare"),
            self._computing(precision, view, knowledge, networks),
        ):
            self.prepare(networks, view, knowledge)
        return networks.eval()

    def _computing(
        self, precision: str, view: ViewT, knowledge: Knowledge, networks: nn.ModuleDict
    ) -> AbstractContextManager[None]:
        """Return the context of the attack's precision, for it and the networks that it holds.

        Access ``gradients`` is always float32: gradient matching follows second derivatives, which need it.
        """
        if isinstance(view, GradientsView):
            precision = "float32"
        held = [view.model] if isinstance(view, WhiteBoxView) else []
        prior = [] if knowledge.latent_prior is None else [knowledge.latent_prior]
        return computing(precision, view.device, networks, *held, *prior)

    @final
    def keep(self, best: Callable[[], Reconstruction]) -> None:
        """Keep how to make the best result so far: the answer where the budget or the victim stops the attack."""
        (self._leader or self)._best = best

    @final
    def draws(self, device: torch.device, *names: object) -> torch.Generator:
        """Return the random generator of one use (``"latents"``, ``"noise"``) on ``device``."""
        return generator(derive((self._leader or self)._seed, *names), device)

    @final
    def steps(self, count: int, what: str = "") -> Iterator[int]:
        """Yield 0..count-1 behind the attack's progress bar."""
        return progress(range(count), f"{(self._leader or self)._label} {what}".strip(), total=count)

    @final
    def lead(self, part: Attack[Any, Any]) -> None:
        """Let ``part``, an attack that this one wraps, draw, count its steps and keep its best as this one."""
        part._leader = self


#: Returns the identity loss of every image, shape ``(N,)``, from the view, images ``(N, C, H, W)`` and class ids.
Identity = Callable[[WhiteBoxView, Tensor, Tensor], Tensor]


class ClassSearch(Attack[WhiteBoxView, ClassGoal]):
    """A class attack that searches for images that the target names, under an identity loss.

    What it minimises goes through :meth:`identify`, so that another attack can wrap it and put a loss of its own there.

    Attributes:
        identity: The loss.
        replaced: What a wrapper has put in its place.
    """

    identity: IdentityLoss = field(init=False, default="cross_entropy")
    replaced: Identity | None = field(init=False, default=None)

    def identify(self, view: WhiteBoxView, images: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return the identity loss of every image, shape ``(N,)``; ``logits`` are the images', where known already."""
        if self.replaced is not None:
            return self.replaced(view, images, labels)
        return identity_loss(self.identity)(view.logits(images) if logits is None else logits, labels)


def failures_blanked(answer: Reconstruction, blank: Reconstruction) -> Reconstruction:
    """Return ``answer`` with every missing entry as its task's blank, so that no metric sees what is not a result."""
    if answer.valid is None or answer.values.shape != blank.values.shape:
        return answer
    keep = answer.valid.reshape(-1, *[1] * (answer.values.dim() - 1))
    labels = answer.labels
    if labels is not None and blank.labels is not None:
        labels = torch.where(answer.valid, labels, blank.labels)
    values = torch.where(keep, answer.values, blank.values)
    return Reconstruction(values, answer.target, labels, answer.valid, answer.loss)


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
