import logging
import logging.config
import sys

import pytest
import torch

from mibench.errors import NotMeasurableError
from mibench.metrics.rouge import Rouge
from mibench.tasks.base import Reconstruction
from mibench.tasks.sequence import SequenceTruth

pytest.importorskip("rouge_score", reason="pip install 'mibench[text]'")

TEXTS = {0: "", 1: "the cat sat on the mat", 2: "the cat on the mat", 3: "no words in common"}


class Tokenizer:
    special = (0,)

    def encode(self, text):
        raise NotImplementedError

    def decode(self, ids):
        return TEXTS[ids[0]]


def measured(true, made, tokenizer):
    x = torch.tensor([[true]])
    known = SequenceTruth(
        x=x, y=torch.zeros(1, dtype=torch.long), target=torch.arange(1), words=x > 0, tokenizer=tokenizer,
        correct=torch.ones(1), chance=0.5,
    )  # fmt: skip
    rows = Rouge().measure(Reconstruction(torch.tensor([[made]]), known.target), known)
    return {row.variant: row.values.item() for row in rows}


def test_the_values_are_those_of_the_card():
    found = measured(1, 2, Tokenizer())
    assert found == pytest.approx({"rouge1": 10 / 11, "rouge2": 6 / 9, "rougeL": 10 / 11})
    assert measured(1, 1, Tokenizer()) == pytest.approx(dict.fromkeys(("rouge1", "rouge2", "rougeL"), 1.0))
    assert (
        measured(1, 3, Tokenizer()) == measured(1, 0, Tokenizer()) == dict.fromkeys(("rouge1", "rouge2", "rougeL"), 0.0)
    )


def test_without_a_tokenizer_there_is_nothing_to_compare():
    with pytest.raises(NotMeasurableError, match="tokenizer"):
        measured(1, 2, None)


def test_logging_is_left_as_it_was(capsys):
    """The package's own handler would close the captured stream when logging is set up anew."""
    before = list(logging.root.handlers)
    measured(1, 2, Tokenizer())
    assert logging.root.handlers == before
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    print("still open", file=sys.stderr)
    assert "still open" in capsys.readouterr().err
