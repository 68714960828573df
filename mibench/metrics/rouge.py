"""ROUGE: the n-grams that a text and its reconstruction share (Lin, ACL workshop 2004).

F1 of shared words (``rouge1``), of shared pairs (``rouge2``) and of the longest common subsequence (``rougeL``), by the
package ``rouge-score`` without stemming, on texts as the tokenizer writes them, special tokens left out. Attacks on
texts are reported with it (LAMP, Balunovic et al., NeurIPS 2022). A missing text is empty and scores 0.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.sequence import SequenceTruth

FORMS = ("rouge1", "rouge2", "rougeL")


class Rouge(Metric[SequenceTruth]):
    """F1 of shared n-grams."""

    card = MetricCard(
        name="rouge",
        title="ROUGE",
        modalities=("text",),
        year=2004,
        fidelity="official",
        tasks=("sequence",),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: SequenceTruth) -> Sequence[Measurement]:
        """Return three F1 scores per text, shape ``(N,)`` each.

        Raises:
            NotMeasurableError: If the package is missing, or nothing turns ids into texts.
        """
        try:
            scorer = scorer_of(FORMS)
        except ImportError:
            raise NotMeasurableError("ROUGE needs the package rouge-score: pip install 'mibench[text]'.") from None
        if truth.tokenizer is None:
            raise NotMeasurableError("ROUGE compares texts, and the dataset has no tokenizer that turns ids into them.")
        decode = truth.tokenizer.decode
        scores = [
            scorer.score(decode(true.tolist()), decode(made.tolist()))
            for true, made in zip(truth.x, result.values, strict=True)
        ]
        return [
            Measurement(torch.tensor([one[form].fmeasure for one in scores]).double(), truth.target, variant=form)
            for form in FORMS
        ]


def scorer_of(forms: Sequence[str]) -> Any:
    """Return the package's scorer, without the handler that it puts on Python's root logger.

    That handler holds whatever stands for standard error at the time of the import, and closes it when logging is set
    up anew.

    Raises:
        ImportError: If the package is missing.
    """
    before = list(logging.root.handlers)
    from absl import logging as absl_logging
    from rouge_score.rouge_scorer import RougeScorer

    for handler in [one for one in logging.root.handlers if one not in before]:
        logging.root.removeHandler(handler)
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
    absl_logging.set_verbosity(absl_logging.WARNING)  # or it tells of its tokenizer every time
    return RougeScorer(list(forms), use_stemmer=False)
