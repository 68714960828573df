import torch

from mibench.metrics.token_accuracy import TokenAccuracy
from mibench.tasks.base import Reconstruction
from mibench.tasks.sequence import SequenceTruth


def truth(x, words=None):
    x = torch.tensor(x)
    words = torch.ones_like(x, dtype=torch.bool) if words is None else torch.tensor(words)
    return SequenceTruth(
        x=x,
        y=torch.zeros(len(x), dtype=torch.long),
        target=torch.arange(len(x)),
        words=words,
        correct=torch.ones(1),
        chance=0.5,
    )


def measured(made, known):
    rows = TokenAccuracy().measure(Reconstruction(torch.tensor(made), known.target), known)
    return {row.variant: row.values.tolist() for row in rows}


def test_words_in_place_and_in_the_bag():
    known = truth([[1, 2, 3, 4], [5, 5, 6, 7]])
    assert measured([[1, 3, 2, 4], [5, 8, 5, 9]], known) == {"": [0.5, 0.25], "bag": [1.0, 0.5], "exact": [0.0, 0.0]}
    assert measured([[1, 2, 3, 4], [5, 5, 6, 7]], known) == {"": [1.0, 1.0], "bag": [1.0, 1.0], "exact": [1.0, 1.0]}


def test_padding_and_special_tokens_are_no_words():
    known = truth([[2, 8, 9, 3, 0, 0]], [[False, True, True, False, False, False]])
    assert measured([[2, 0, 9, 3, 0, 0]], known) == {"": [0.5], "bag": [0.5], "exact": [0.0]}
    assert measured([[7, 8, 9, 7, 7, 7]], known) == {"": [1.0], "bag": [1.0], "exact": [1.0]}
    assert measured([[0] * 6], known) == {"": [0.0], "bag": [0.0], "exact": [0.0]}
