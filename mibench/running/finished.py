"""Whether a model that came finished is read as it was trained: its answers, its accuracy, the order of its classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mibench.card import DatasetCard
from mibench.data import Examples, Split, evenly
from mibench.errors import UserError
from mibench.leaderboard.scoring import near_chance
from mibench.nn.foreign import misplaced
from mibench.settings.victim import Victim
from mibench.training import is_correct

log = logging.getLogger("mibench")

#: What a user is told of a model that hardly knows the data.
MISFIT = (
    "The model is near chance on the private test data, as with a wrong target.mean, target.std or target.size, or "
    "with class folders in another order than its labels; a misread model looks safe, so set this right first."
)

#: What is said of outputs that look like probabilities.
SQUASHED = (
    "All outputs of the model for private data lie between 0 and 1, as probabilities do: if it ends in a sigmoid or "
    "softmax of its own making, give it without, or every score is of a softmax of probabilities and looks safer than "
    "it is."
)

#: The most private examples that the order of classes is looked for with.
MOST = 4096

#: Of the classes that another order moves: the least share that it gets right, and the least that it gains.
RIGHT, GAINED = 0.6, 0.4

#: How many standard errors (of McNemar's test) the gain is at least.
ERRORS = 2.5

#: The most classes whose order is written in full.
FEW = 40


def accuracy_of(victim: Victim, data: Examples) -> float:
    """Return the share of examples that the defended victim is right on."""
    return float(is_correct(victim.predict_proba, data).double().mean())


def chance_of(data: Examples) -> float:
    """Return the accuracy of always naming the most frequent class."""
    return float(data.y.bincount().max()) / len(data)


def doubts_of(victim: Victim, split: Split, dataset: DatasetCard) -> list[str]:
    """Say a finished model's accuracy, and return what speaks against the way it is read, in sentences.

    Args:
        victim: The model behind its defense.
        split: The data, with private test examples.
        dataset: The data set's card.

    Raises:
        UserError: If it cannot run where it is, or its answers are not finite.
    """
    parts = (split.private.train, split.private.test)
    x = torch.cat([evenly(part.x, MOST // 2) for part in parts])
    y = torch.cat([evenly(part.y, MOST // 2) for part in parts])
    logits = _logits(victim, x)
    test = split.private.test
    accuracy, chance = accuracy_of(victim, test), chance_of(test)
    log.info("model     right on %.0f %% of the private test data (chance %.0f %%)", 100 * accuracy, 100 * chance)
    names = split.class_names or tuple(map(str, range(split.spec.classes)))
    doubts = list(getattr(victim.module, "remarks", ()))
    if float(logits.min()) >= 0 and float(logits.max()) <= 1:
        doubts.append(SQUASHED)
    if other := another_order(logits.argmax(1), y, names, bool(dataset.class_folders)):
        return [*doubts, other]
    return [*doubts, MISFIT] if near_chance(accuracy, chance) else doubts


@torch.no_grad()
def _logits(victim: Victim, x: Tensor) -> Tensor:
    model = victim.module
    try:
        logits = torch.cat([model(part.to(model.device)).cpu() for part in x.split(512)])
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if (elsewhere := misplaced(error, model.device)) is None:
            raise
        raise elsewhere from error
    if odd := int((~torch.isfinite(logits)).any(1).sum()):
        raise UserError(
            f"The model's answers to {odd} of {len(x)} private examples are not finite (NaN or infinite), as of a "
            "training that diverged or of a wrong target.mean or target.std; give weights that answer with numbers."
        )
    return logits


def another_order(answered: Tensor, y: Tensor, names: Sequence[str], orders: bool) -> str:
    """Return the sentence that names an order of the classes that fits the answers far better; empty where none does.

    The best one-to-one matching of outputs to classes is compared with the identity, over the classes that it moves.

    Args:
        answered: The most probable output for every example, shape ``(N,)``.
        y: Its class, shape ``(N,)``.
        names: Names of the classes by id.
        orders: Whether ``dataset.order`` can be set.
    """
    from scipy.optimize import linear_sum_assignment

    count = len(names)
    counts = np.zeros((count, count), dtype=np.int64)  # by class and output
    np.add.at(counts, (y.numpy(), answered.numpy()), 1)
    _, output_of = linear_sum_assignment(-(counts * (count + 1) + np.eye(count, dtype=np.int64)))
    moved = np.flatnonzero(output_of != np.arange(count))
    if not len(moved):
        return ""
    examples = int(counts[moved].sum())
    right, as_read = int(counts[moved, output_of[moved]].sum()), int(counts[moved, moved].sum())
    gain = right - as_read
    if right < RIGHT * examples or gain < GAINED * examples or gain < ERRORS * (right + as_read) ** 0.5:
        return ""
    share = counts[np.arange(count), output_of] / np.maximum(counts.sum(1), 1)
    class_of = np.argsort(output_of)
    known = [names[one] if share[one] >= 0.5 else "?" for one in class_of]
    unknown = [names[one] for one in range(count) if share[one] < 0.5]
    hits, now = int(np.trace(counts)), int(counts[np.arange(count), output_of].sum())
    if count <= FEW:
        what = f"its outputs are {', '.join(known)} in this order"
    else:
        pairs = [f"'{known[one]}' instead of '{names[one]}'" for one in np.sort(output_of[moved])[:6]]
        what = f"outputs are {', '.join(pairs)} and so on for {len(moved)} of them"
    order = f"[{','.join(known)}]" if count <= FEW and not unknown else "[...]"
    remedy = f"set dataset.order={order}" if orders else "permute its outputs in target.factory"
    if unknown:
        remedy += f", and see whether it was trained on {', '.join(unknown[:6])} at all"
    return (
        f"Another order of the classes fits the model far better: right on {now / len(y):.0%} of the private data "
        f"instead of {hits / len(y):.0%} if {what}; {remedy}, or whatever is said of single classes is of wrong ones."
    )
