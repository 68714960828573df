"""A language model of counts: bigrams with absolute discounting, backed off to single tokens.

H. Ney, U. Essen, R. Kneser, On Structuring Probabilistic Dependences in Stochastic Language Modelling, Computer Speech
and Language, 1994.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Subtracted from the count of every pair that was seen; what it adds up to is shared by pairs that were not.
DISCOUNT = 0.75


class Bigrams:
    """The probability of a token after the one before it, in texts that were counted.

    Args:
        texts: Token ids, shape ``(N, tokens)``, with padding behind each text.
        vocabulary: Number of token ids.
        padding: The id of padding, which is counted nowhere.
    """

    def __init__(self, texts: Tensor, vocabulary: int, padding: int) -> None:
        self.vocabulary, self.padding = vocabulary, padding
        said = texts[texts != padding]
        self.single = (torch.bincount(said, minlength=vocabulary) + 1) / (len(said) + vocabulary)
        before, after = texts[:, :-1], texts[:, 1:]
        there = (before != padding) & (after != padding)
        self.pairs, counts = (before[there] * vocabulary + after[there]).unique(return_counts=True)
        self.counts = counts.float()
        first = self.pairs // vocabulary
        self.seen = torch.zeros(vocabulary, device=texts.device).index_add(0, first, self.counts)
        self.followers = torch.bincount(first, minlength=vocabulary)

    def probabilities(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the probability of the tokens ``after`` where those of ``before`` came, of the same shape, in (0, 1].

        It is ``max(c - d, 0) / s + d f / s p(after)`` with the pair's count ``c``, the count ``s`` of pairs that begin
        with ``before``, its number ``f`` of different followers and the discount ``d``; ``p(after)`` alone for a token
        that nothing followed.
        """
        alone, times = self.single[after], self.seen[before]
        if not len(self.pairs):
            return alone
        key = before * self.vocabulary + after
        place = torch.searchsorted(self.pairs, key).clamp_max(len(self.pairs) - 1)
        count = self.counts[place] * (self.pairs[place] == key)
        left = DISCOUNT * self.followers[before] * alone
        return torch.where(times > 0, ((count - DISCOUNT).clamp_min(0) + left) / times.clamp_min(1), alone)

    def loss(self, ids: Tensor) -> Tensor:
        """Return the mean of ``-log p`` in nats over all tokens that follow another one, shape ``(n,)``.

        Args:
            ids: Texts of token ids, shape ``(n, ..., tokens)``; padding counts as no token.
        """
        before, after = ids[..., :-1], ids[..., 1:]
        there = (before != self.padding) & (after != self.padding)
        surprise = -self.probabilities(before, after).log() * there
        return surprise.flatten(1).sum(1) / there.flatten(1).sum(1).clamp_min(1)
