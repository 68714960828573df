"""What a reader of a cell's numbers must know, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from mibench.access import GradientsView
from mibench.leaderboard.scoring import near_chance
from mibench.nn.batch_norm import norms
from mibench.optim.message_checks import looks_reversed, silent_messages
from mibench.planning.calibration import outside_calibration
from mibench.planning.cards import family_of
from mibench.running.adversary import Adversary
from mibench.running.stage import evaluator_family
from mibench.settings.evaluators import reaches
from mibench.tasks.base import Truth

NO_CONTROL = "There is no control (control=none): a value alone does not say how much of it is a leak."

NO_STRANGERS = (
    "The same attack on masked test images (the null non_members) does not stand beside these numbers: a class has no "
    "test image, or the cell was scored again without it; run it with overwrite=always."
)

SILENT = (
    "{count} of {all} messages are zero in every entry and say nothing of the inputs: what is returned for them is "
    "where the search began, or what the attack's own networks make of nothing."
)

REVERSED = (
    "The captured update looks as if its sign were the opposite one: more classes would be named by it than there are "
    "examples. Save the parameters before the training minus those after it (dataset.kind=delta), or the gradient of "
    "the loss."
)

LABELS_IN_ORDER = (
    "The granted class ids (knowledge.labels) stand in the order of the examples, so they also tell which are of one "
    "local mini-batch, and of one client where a message is the mean of several."
)

#: What is said of a defense that takes part in training and serves a model that came trained.
UNTRAINED = (
    "The model came trained, so defense '{name}' acts on its {serves} alone: it was not trained with the defense "
    "({hooks}), and may lose more utility, and hide less or more, than one that was."
)

#: What is said of face embeddings whose files are not there.
NO_EMBEDDING = (
    "These face embeddings did not judge, for their files are not there or not the published ones: {names}; "
    "get them with python -m mibench fetch face_judges."
)


def notes_of(cell: Adversary, truth: Truth) -> list[str]:
    """Return what a reader of the numbers must know of split, setting, victim and evaluation models."""
    return [*_of_control(cell), *_of_attack(cell), *_of_victim(cell, truth), *_of_evaluators(cell, truth)]


def _of_control(cell: Adversary) -> Iterator[str]:
    if cell.task.retrains:
        yield from cell.split.notes
        if cell.config["control"] == "none":
            yield NO_CONTROL
    yield from cell.split.reading
    yield from cell.remarks


def _of_attack(cell: Adversary) -> Iterator[str]:
    if cell.result.stopped:
        yield f"The attack ended early: {cell.result.stopped}"
    batch_norm = cell.victim.model is not None and bool(norms(cell.victim.model))
    yield from cell.setting.described(cell.plan.cards.defense, batch_norm)
    if outside := outside_calibration(cell.config, cell.plan.cards.batch_size):
        yield outside
    if isinstance(view := cell.observation.view, GradientsView):
        if silent := silent_messages(view):
            yield SILENT.format(count=len(silent), all=len(view.messages))
        if cell.split.captured is not None and looks_reversed(view):
            yield REVERSED
    if "labels" in cell.knowledge.facts and cell.setting.parts_of_message > 1:
        yield LABELS_IN_ORDER


def _of_victim(cell: Adversary, truth: Truth) -> Iterator[str]:
    accuracy, chance, defense = _accuracy(truth), truth.chance, cell.plan.cards.defense
    finished = bool(cell.config["target"].get("weights"))
    if finished and defense.trains:
        hooks, serves = ", ".join(defense.trains), ", ".join(defense.finished)
        yield UNTRAINED.format(name=defense.name, hooks=hooks, serves=serves)
    yield from cell.doubts
    if near_chance(accuracy, chance) and not finished and cell.plan.access != "gradients":  # which tell at any age
        yield (
            f"The defended victim is right on {accuracy:.0%} of its test data, near the {chance:.0%} of "
            "naming one class always: it has learned little, so a small leak would be no merit of a defense."
        )


def _of_evaluators(cell: Adversary, truth: Truth) -> Iterator[str]:
    if not truth.evaluators:
        return
    target, family = cell.undefended_accuracy, family_of(cell.plan.cards.target, cell.config["target"])
    for one in truth.evaluators:
        if not reaches(one.accuracy, target):
            then = "it has no vote" if not one.votes else "as none reaches it, it votes all the same"
            yield (
                f"Evaluation model '{one.name}' is right on {one.accuracy:.0%} of the test data, less than the "
                f"undefended target's {target:.0%}: {then}; more rounds (evaluation.rounds) or others "
                "(evaluation.models) may do better."
            )
    for one in truth.evaluators:
        if one.name not in cell.embeddings and family and family == evaluator_family(cell.plan, one.name):
            yield (
                f"Evaluation model '{one.name}' is of the victim's family ({family}): it accepts texture made against "
                "the victim more easily; choose others with evaluation.models."
            )
    wanted = cell.config["evaluation"]["embeddings"] if cell.split.subject == "face" else []
    if absent := [name for name in wanted if name not in cell.embeddings]:
        yield NO_EMBEDDING.format(names=", ".join(absent))


def _accuracy(truth: Truth) -> float:
    """Return the defended victim's accuracy on private test data."""
    return float(truth.correct.double().mean())
