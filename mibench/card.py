"""The vocabulary of mibench: cards that describe components as data.

A card is a literal in the class body of its component, so that it can be read with :mod:`ast` and neither
torch nor the component is imported to list, plan or refuse a cell.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Modality = Literal["image", "text", "tabular", "audio", "graph"]
Hook = Literal["data", "input", "architecture", "training", "output", "features", "update", "protocol"]
Fidelity = Literal["official", "paper", "reconstruction"]
Space = Literal["latent", "class", "style", "inpainting"]
Encoder = Literal["", "architecture", "query", "weights"]

MODALITIES: tuple[str, ...] = get_args(Modality)
HOOKS: tuple[str, ...] = get_args(Hook)
FIDELITIES: tuple[str, ...] = get_args(Fidelity)
SPACES: tuple[str, ...] = get_args(Space)

#: The defense hooks that take part in making a model, so that one that came trained has to do without them.
HOOKS_OF_TRAINING: tuple[Hook, ...] = ("data", "input", "architecture", "training")


@dataclass(frozen=True)
class Access:
    """What an attacker can be given of a victim.

    Attributes:
        hooks: The defense hooks that lie between the private data and what it sees.
        view: The class of its view, as ``MODULE:CLASS`` below ``mibench.access``.
        words: What it is, for the documentation.
    """

    hooks: tuple[Hook, ...]
    view: str
    words: str


_ANSWERED: tuple[Hook, ...] = (*HOOKS_OF_TRAINING, "output")
_SENT: tuple[Hook, ...] = (*HOOKS_OF_TRAINING, "update", "protocol")
_AT_THE_CUT: tuple[Hook, ...] = (*HOOKS_OF_TRAINING, "features")

#: Every access there is, by name. A new one is a line here and a view class.
ACCESS: Mapping[str, Access] = {
    "white_box": Access(HOOKS_OF_TRAINING, "white_box:WhiteBoxView", "the model, weights and all"),
    "scores": Access(_ANSWERED, "services:ScoresView", "a service's probabilities"),
    "labels": Access(_ANSWERED, "services:LabelsView", "a service's most probable class, -1 where it abstains"),
    "explanations": Access(_ANSWERED, "services:ExplanationsView", "a service's probabilities and saliency maps"),
    "gradients": Access(_SENT, "gradients:GradientsView", "what federated clients send, and the global model"),
    "features": Access(_AT_THE_CUT, "features:FeaturesView", "what split clients send or an embedding service returns"),
    "generate": Access(_ANSWERED, "services:GenerateView", "a service that continues a prompt"),
    "encrypted_images": Access(("data", "input"), "pairs:EncryptedImagesView", "images as a defense scrambles them"),
    "two_models": Access(HOOKS_OF_TRAINING, "pairs:TwoModelsView", "a model before and after it learned some examples"),
    "none": Access((), "base:NoView", "nothing but public facts"),
}

#: The defense hooks that lie between the private data and what the attacker sees, by access.
HOOKS_ON_PATH: Mapping[str, tuple[Hook, ...]] = {name: access.hooks for name, access in ACCESS.items()}

ACCESSES: tuple[str, ...] = tuple(ACCESS)


def _tasks() -> tuple[dict[str, str], dict[str, tuple[str, str, str]], frozenset[str]]:
    """Return every task's module and headlines, by name, and which are judged, read from the text of the files there.

    A headline that is another one for a modality stands under both names: ``instance tabular``.
    """
    modules, headlines, judged = {}, {}, set()
    for file in sorted(Path(__file__).with_name("tasks").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            body = node.body if isinstance(node, ast.ClassDef) else []
            said = {ast.unparse(one.targets[0]): one.value for one in body if isinstance(one, ast.Assign)}
            if {"name", "headline"} <= said.keys():
                name = ast.literal_eval(said["name"])
                modules[name], headlines[name] = file.stem, ast.literal_eval(said["headline"])
                for modality, other in ast.literal_eval(said["headlines"]) if "headlines" in said else ():
                    headlines[f"{name} {modality}"] = other
                if "judged" in said and ast.literal_eval(said["judged"]):
                    judged.add(name)
    return modules, headlines, frozenset(judged)


#: The modules of all tasks, the headline of each (metric, variant, evaluator), and the tasks with evaluation models.
TASKS, HEADLINES, JUDGED = _tasks()


def headline_of(task: str, modality: str) -> tuple[str, str, str]:
    """Return metric, variant and evaluator by which the attacks of a task on a modality are compared first.

    >>> headline_of("instance", "image"), headline_of("instance", "tabular")
    (('psnr', '', ''), ('tolerance_accuracy', '', ''))
    """
    return HEADLINES.get(f"{task} {modality}", HEADLINES.get(task, ("", "", "")))


#: Stands for the name, as the key of a paper's reference.
SAME = "="

#: A judge that is less accurate than the victim by no more than this (half a point) is as accurate.
AS_ACCURATE = 0.005


@dataclass(frozen=True, kw_only=True)
class Card:
    """What every component says of itself.

    Attributes:
        name: The id: the stem of the yaml, the module, the test and the key in ``references.bib``.
        title: The method's name as people write it.
        modalities: The modalities it works on.
        revision: Raised when its numbers change; part of every artifact's identity.
        unrevised: Options, with their values, at which the last revision changed no number: a block that has them all
            is still that of the revision before, so that ids of such cells stay.
        year: Year of publication; 0 where there is no paper.
        bib: Key in ``references.bib``: the name unless it is said; empty where there is no paper.
        code: Address of the official code, empty where there is none.
        fidelity: ``official`` (the authors' code was the reference), ``paper`` (the text was) or
            ``reconstruction`` (parts were inferred; the module's docstring says which).
        variant_of: The entry whose file this one shares; set by the yaml, not by the card.
    """

    name: str
    title: str
    modalities: tuple[Modality, ...]
    revision: int = 1
    unrevised: tuple[tuple[str, bool | int | float | str | None], ...] = ()
    year: int = 0
    bib: str = SAME
    code: str = ""
    fidelity: Fidelity = "paper"
    variant_of: str = ""

    def __post_init__(self) -> None:
        if self.bib == SAME:
            object.__setattr__(self, "bib", self.name if self.year else "")
        _check("modality", self.modalities, MODALITIES, self.name)
        _check("fidelity", (self.fidelity,), FIDELITIES, self.name)


@dataclass(frozen=True, kw_only=True)
class DatasetCard(Card):
    """A dataset: its licence, and whether its pictures may be shown in public.

    Attributes:
        licence: Terms of use, as short as they can be said.
        may_show: Whether pictures (originals or reconstructions) may stand on a public page.
        embedded: Whether the data travel inside the package.
        tasks: The tasks whose truth the dataset can give.
        judges: The architectures of its evaluation models, before those of ``evaluation.models``.
        class_folders: The options that name a folder of class folders.
    """

    licence: str
    may_show: bool
    embedded: bool = False
    tasks: tuple[str, ...] = ("class", "instance", "completion")
    judges: tuple[str, ...] = ()
    class_folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("task", self.tasks, TASKS, self.name)


@dataclass(frozen=True, kw_only=True)
class TargetCard(Card):
    """A target model's architecture.

    Attributes:
        family: What it is built of, as ``residual`` or ``vgg``: evaluation models of the victim's family are fooled
            more easily. Empty where an option decides (:func:`mibench.planning.cards.family_of`) or nobody knows.
    """

    family: str = ""


@dataclass(frozen=True, kw_only=True)
class SettingCard(Card):
    """A training and observation setting.

    Attributes:
        access: What an attacker can be given in it.
        training_hooks: Defense hooks that act while the target is trained here, beyond data, input,
            architecture and training.
        clients: Whether clients train here, whose server an attack may be.
    """

    access: tuple[str, ...]
    training_hooks: tuple[Hook, ...] = ()
    clients: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("access", self.access, ACCESSES, self.name)
        _check("hook", self.training_hooks, HOOKS, self.name)


@dataclass(frozen=True, kw_only=True)
class AttackCard(Card):
    """An attack.

    Attributes:
        family: The family of the surveys: ``generative``, ``gradient matching``, ``output matching``, or ``floor``.
        task: What it reconstructs.
        access: The access levels it can work with, the one it is usually reported with first.
        needs: What the attacker must own: ``public`` (data), ``prior``, ``marginals``, ``transcript`` (of all uploads).
        uses: What it takes when the threat model grants it: ``labels``, ``confusion``, ``companions``,
            ``local_training`` (how clients train), ``buffers`` (their batch-norm statistics), ``defense_loss`` (the
            loss that a defense gives them).
        largest_batch: The largest client batch it is defined for; 0 means any.
        space: Which space of its prior it searches.
        plants: Whether it acts as the server, and changes the model that clients are sent (a malicious server).
        takes_part: Whether the attacker is one of the clients too, and opens what they seal for each other.
        encoder: What it must have of a split client's encoder; empty where it needs nothing of one.
    """

    family: str
    task: str
    access: tuple[str, ...]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    largest_batch: int = 0
    space: Space = "latent"
    plants: bool = False
    takes_part: bool = False
    encoder: Encoder = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("space", (self.space,), SPACES, self.name)
        _check("task", (self.task,), TASKS, self.name)
        _check("access", self.access, ACCESSES, self.name)


@dataclass(frozen=True, kw_only=True)
class DefenseCard(Card):
    """A defense.

    Attributes:
        hooks: The hooks it overrides.
        affects: The accesses whose attacker can see any difference at all.
        withholds: The accesses that it takes away: what they offer is served to nobody.
        strength: The one option that sweeps its strength, empty where there is none.
        stronger: Whether ``higher`` or ``lower`` values of that option protect more; empty where there is none.
        levels: Values of it from weak to strong, over which ``grid=utility_sweep`` runs it.
        baselines: Options, each with the value at which the defense leaves out what protects and keeps the rest (a
            private training without noise); ``grid=utility_sweep`` runs them beside the levels. A value at which it
            does nothing at all is ``defense=none``, and none of these.
        adaptive: The attackers who know of it, each as the words of a command line (``attack=brepmi``), for which
            ``attack=adaptive`` stands in a sweep; empty where it hides nothing that an attacker could go around.
        replaces: What it trains in the target's place (``decision tree``); attackers may then only query it.
        cohort: Whether one message of it stands for all clients of a round.
        finished: Of one that takes part in training, the hooks that can serve a model which came trained.
    """

    hooks: tuple[Hook, ...]
    affects: tuple[str, ...]
    withholds: tuple[str, ...] = ()
    strength: str = ""
    stronger: Literal["higher", "lower", ""] = ""
    levels: tuple[float, ...] = ()
    baselines: tuple[tuple[str, bool | int | float | str | None], ...] = ()
    adaptive: tuple[str, ...] = ()
    replaces: str = ""
    cohort: bool = False
    finished: tuple[Hook, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("hook", self.hooks, HOOKS, self.name)
        _check("hook", self.finished, self.hooks, self.name)
        _check("access", self.affects, ACCESSES, self.name)
        _check("access", self.withholds, ACCESSES, self.name)
        _check("direction", {self.stronger} - {""}, ("higher", "lower"), self.name)
        if self.stronger and list(self.levels) != sorted(self.levels, reverse=self.stronger == "lower"):
            raise ValueError(f"Card '{self.name}': the levels {self.levels} do not go {self.stronger}.")

    @property
    def trains(self) -> tuple[Hook, ...]:
        """Its hooks that take part in making a model."""
        return tuple(hook for hook in self.hooks if hook in HOOKS_OF_TRAINING)

    @property
    def on_finished(self) -> tuple[Hook, ...]:
        """The hooks with which it serves a model that came trained."""
        return self.finished if self.trains else self.hooks

    def reaches_finished(self, access: str) -> bool:
        """Whether one of :attr:`on_finished` lies between a model that came trained and who has ``access`` to it."""
        return bool(set(self.on_finished) & set(HOOKS_ON_PATH[access]))


@dataclass(frozen=True, kw_only=True)
class MetricCard(Card):
    """A metric.

    Attributes:
        tasks: The tasks it is defined for; any other is refused.
        higher_is_leakier: Whether a larger value means a larger leak; None where neither direction is one.
        unit: Unit of its values, empty for shares and scores.
        default: Whether a cell of its task computes it without being asked.
        updates: Whether that holds only where clients send updates.
        share: Whether its values are shares within [0, 1], in which their intervals then stay.
        confirms: By what it confirms a leak as an independent judge: pairs of a number's variant (empty: the only one
            that is no yardstick) and of the yardstick of its power, the share of real examples that it accepts.
    """

    tasks: tuple[str, ...]
    higher_is_leakier: bool | None
    unit: str = ""
    default: bool = True
    share: bool = False
    confirms: tuple[tuple[str, str], ...] = ()
    updates: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("task", self.tasks, TASKS, self.name)


@dataclass(frozen=True, kw_only=True)
class PriorCard(Card):
    """A prior (generator) that the attacker trains on public data.

    Attributes:
        spaces: What of it can be searched: ``latent`` vectors, latents given a ``class``, a ``style`` space, latents
            given a masked image (``inpainting``).
        asks: The access to the victim that its training needs; empty where public data suffice. A prior that asks is
            made for one victim, and its queries are the attack's.
    """

    spaces: tuple[Space, ...] = ("latent",)
    asks: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("space", self.spaces, SPACES, self.name)


def _check(what: str, values: Iterable[str], known: Collection[str], name: str) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"Card '{name}': expected {what} to be one of {', '.join(known)}, but got '{value}'.")
