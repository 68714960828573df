r"""Token accuracy: how many of a text's words come back, in their places and at all.

Of the :math:`n` tokens of a true text that are words, neither special tokens nor padding,

.. math:: \mathrm{place} = \frac{1}{n} \sum_t [\hat x_t = x_t], \qquad
          \mathrm{bag} = \frac{1}{n} \sum_v \min(c_v(x), c_v(\hat x))

with the counts :math:`c_v` of token :math:`v` (in the whole of the answer for :math:`\hat x`), and ``exact``, whether
all words are in place. The first has no name in a row; it is the task's headline. The order of a batch's texts is
matched before (:mod:`mibench.tasks.sequence`). A missing text arrives as padding and scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.sequence import SequenceTruth


class TokenAccuracy(Metric[SequenceTruth]):
    """Share of words in place, in the bag, and of texts that are exact."""

    card = MetricCard(
        name="token_accuracy",
        title="Token accuracy",
        modalities=("text",),
        year=2021,
        bib="tag",
        tasks=("sequence",),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: SequenceTruth) -> Sequence[Measurement]:
        """Return three shares per text, shape ``(N,)`` each."""
        place = ((result.values == truth.x) & truth.words).sum(1) / truth.words.sum(1).clamp_min(1)
        bag = torch.stack([shared(*one) for one in zip(result.values, truth.x, truth.words, strict=True)])
        values = {"": place, "bag": bag, "exact": place == 1}
        return [Measurement(one.double(), truth.target, variant=name) for name, one in values.items()]


def shared(made: Tensor, true: Tensor, words: Tensor) -> Tensor:
    """Return the share of a text's words that an answer holds, wherever they stand, each as often as it does.

    Args:
        made: Ids of the answer, shape ``(tokens,)``.
        true: Ids of the text, shape ``(tokens,)``.
        words: Where the text has words, shape ``(tokens,)``.
    """
    size = int(max(made.max(), true.max())) + 1
    counts = [one.bincount(minlength=size) for one in (made, true[words])]
    return torch.minimum(*counts).sum() / words.sum().clamp_min(1)
