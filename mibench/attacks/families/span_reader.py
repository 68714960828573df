"""The family of readers of texts: tokens whose vectors lie in the spans of gradients, and texts made of them.

What enters the first block of a model at a position depends on one token, what enters the second on others too. Where
attention is causal these are the tokens before it, so that texts grow (:class:`CausalReader`); in an encoder it is the
whole text (:class:`mibench.attacks.families.encoder_reader.EncoderReader`).
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from mibench.access import GradientsView
from mibench.model import Attention, Classifier
from mibench.optim.spans import Span

log = logging.getLogger("mibench")

#: Texts that are tested at once.
AT_ONCE = 256


class ReadingOptions(Protocol):
    """The options of a reader; :class:`mibench.attacks.dager.Dager` says what each is."""

    token_threshold: float
    text_threshold: float
    delta_threshold: float
    noisy: bool
    outlier: float
    contexts: int
    beam: int
    starts: int
    sweeps: int
    overlap: float
    max_combinations: int


@dataclass
class SpanReader(ABC):
    """Reads the texts behind one message.

    Attributes:
        attack: Its options.
        view: The global model.
        attention: What the model says of its attention.
        spans: The spans of the first blocks' gradients.
        draws: Random numbers.
        tested: Texts tested so far.
        level: Mean and deviation of the value of random texts; used where messages are noisy.
        others: Texts that were not accepted, with their values.
    """

    attack: ReadingOptions
    view: GradientsView
    attention: Attention
    spans: Sequence[Span]
    draws: torch.Generator
    tested: int = 0
    level: tuple[float, float] = (0.0, 1.0)
    others: list[tuple[Tensor, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exact: Classifier = copy.deepcopy(self.view.model).double()
        spec, options = self.view.spec, self.attack
        special = () if spec.tokenizer is None else tuple(spec.tokenizer.special)
        self.start, self.end = special[2:4] if len(special) == 4 else (-1, -1)
        self.bounds = (options.delta_threshold,) * 2 if self.view.deltas else (
            options.token_threshold, options.text_threshold)  # fmt: skip

    @torch.no_grad()
    def texts(self) -> list[tuple[list[int], float]]:
        """Return at most as many texts as the batch has, with the mean distance of their tokens, the closest first."""
        candidates = self.tokens()
        if not candidates:
            log.warning("No token of the vocabulary lies in the span of the first block's gradient.")
            return []
        found = self.exact_texts(candidates)
        if self.tested >= self.attack.max_combinations and len(found) < self.view.batch_size:
            log.warning(
                "The search of texts stopped after attack.max_combinations=%d combinations; %d of %d texts are exact, "
                "the others are the closest that were met.",
                self.attack.max_combinations, len(found), self.view.batch_size,
            )  # fmt: skip
        chosen = sorted(found, key=lambda one: one[1])[: self.view.batch_size]
        for text, value in sorted(self.others, key=lambda one: one[1]):
            if len(chosen) < self.view.batch_size and not any(self.alike(text[None], one) for one, _ in chosen):
                chosen.append((text, value))
        return [(self.closed(text), value) for text, value in chosen]

    @abstractmethod
    def exact_texts(self, candidates: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
        """Return the texts of candidates by position that are accepted, with their values."""

    def tokens(self) -> list[Tensor]:
        """Return the candidates of every position up to the first that has none, the closest first."""
        found, vocabulary = [], self.view.spec.vocabulary
        for position in range(self.view.spec.shape[0]):
            if self.attack.noisy:
                kept = self.outlying(position)
            else:
                alone = partial(self.alone, position)
                coarse, exact = partial(alone, self.view.model), partial(alone, self.exact)
                kept = self.spans[0].close(vocabulary, coarse, exact, self.bounds[0])[0]
            if not len(kept):
                break
            found.append(kept.cpu())
        return found

    def alone(self, position: int, model: Classifier, ids: Tensor, block: int = 0) -> Tensor:
        """Return what enters a block, the first unless it is said, for tokens ``(N,)`` alone at a position."""
        return self.vectors(model, ids[:, None], block, position)[:, 0]

    def outlying(self, position: int) -> Tensor:
        """Return the closest tokens at a position, at most 50 a text or 5 % of the vocabulary, as far as outliers.

        At the first position of causal attention all blocks tell of a token alone. At later ones the closest tokens
        stay, for texts tell outliers from them.
        """
        vocabulary, size = self.view.spec.vocabulary, self.view.batch_size
        ids = torch.arange(vocabulary, device=self.view.device)
        alone = len(self.spans) if self.attention.causal and not position else 1
        apart = [
            torch.cat([
                span.distance(self.alone(position, self.exact, part, block)) for part in ids.split(AT_ONCE * 8)
            ])
            for block, span in enumerate(self.spans[:alone])
        ]  # fmt: skip
        value = logit(torch.stack(apart)).mean(0)
        order = value.argsort()[: max(50 * size, vocabulary // 20)]
        if self.attention.causal and position:
            return order
        return order[value[order] < value.mean() - self.attack.outlier * value.std()]

    def vectors(self, model: Classifier, ids: Tensor, block: int, first: int = 0) -> Tensor:
        """Return what enters a block for ids ``(N, tokens)``; the first block's is looked up, others count as asked."""
        attention, entry = model.attention(), model.entry
        assert attention is not None and entry is not None
        embedded = entry.canonical(ids) if block == 0 or first else model.normalise(ids)
        return attention.entering(embedded, block, first)

    def apart(self, ids: Tensor, model: Classifier | None = None) -> Tensor:
        """Return the distances of texts ``(N, tokens)`` behind the first block, shape ``(N, blocks, tokens)``.

        They are NaN where padding takes no part.
        """
        model, found = model or self.view.model, []
        for part in ids.to(self.view.device).split(AT_ONCE):
            found.append(torch.stack([
                span.distance(self.vectors(model, part, block)) for block, span in enumerate(self.spans[1:], 1)
            ], 1).cpu())  # fmt: skip
        self.tested += len(ids)
        return torch.cat(found)

    def values(self, apart: Tensor) -> Tensor:
        """Return the mean distance of every text, shape ``(N,)``; of noisy messages that of its logarithm."""
        return (logit(apart) if self.attack.noisy else apart).flatten(1).nanmean(1)

    def accepted(self, ids: Tensor, apart: Tensor) -> Tensor:
        """Return which texts' tokens lie in the spans, shape ``(N,)``, or of noisy messages are outliers."""
        if self.attack.noisy:
            return self.values(apart) < self.level[0] - self.attack.outlier * self.level[1]
        return self.inside(ids, apart)

    def inside(self, ids: Tensor, apart: Tensor, last: bool = False) -> Tensor:
        """Return of which texts the tokens lie in the spans, shape ``(N,)``; those that seem to are tested in float64.

        Args:
            ids: Texts ``(N, tokens)``.
            apart: Their distances in float32, of the tokens that are asked for.
            last: Whether of a text the last token alone is asked for.
        """
        passed = (apart.nan_to_num() < 2 * self.bounds[1]).flatten(1).all(1)
        if passed.any():
            again = self.apart(ids[passed], self.exact)
            again = again[:, :, -1:] if last else again
            passed[passed.clone()] = (again.nan_to_num() < self.bounds[1]).flatten(1).all(1)
        return passed

    def room(self, wanted: int) -> int:
        """Return how many of ``wanted`` texts may still be tested."""
        return min(wanted, max(0, self.attack.max_combinations - self.tested))

    def alike(self, texts: Tensor, other: Tensor) -> Tensor:
        """Return which texts ``(N, tokens)`` agree with another one in ``overlap`` or more of the longer one's tokens.

        Padding is left out, and what one has behind the end of the other disagrees.
        """
        size, padding = min(texts.shape[1], len(other)), self.view.spec.padding
        agree = ((texts[:, :size] == other[:size]) & (other[:size] != padding)).sum(1)
        longer = (texts != padding).sum(1).clamp_min(int((other != padding).sum()))
        return agree >= self.attack.overlap * longer

    def closed(self, text: Tensor) -> list[int]:
        """Return the ids of a text; one that grew to no end gets the one that all texts have, which no loss reads."""
        ids: list[int] = text.tolist()
        if self.attention.causal and self.end >= 0 and self.end not in ids and len(ids) < self.view.spec.shape[0]:
            ids.append(self.end)
        return ids


@dataclass
class CausalReader(SpanReader):
    """Reads texts of a model with causal attention, token by token."""

    def exact_texts(self, candidates: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
        """Return the texts that no candidate continues, with their values."""
        size, found = self.view.batch_size, list[tuple[Tensor, float]]()
        texts, sums, sure = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1), torch.ones(1, dtype=torch.bool)
        for position, tokens in enumerate(candidates):
            room = self.room(len(texts) * len(tokens)) // len(tokens)
            if not room:
                break
            order = torch.stack([~sure, sums], 1).double()
            kept = sorted(range(len(texts)), key=lambda row: order[row].tolist())[:room]
            texts, sums, sure = texts[kept], sums[kept], sure[kept]
            longer = torch.cat([texts.repeat_interleave(len(tokens), 0), tokens.repeat(len(texts))[:, None]], 1)
            apart = self.apart(longer)[:, :, -1:]
            values = self.values(apart)
            if self.attack.noisy:
                self.level = (float(values.mean()), float(values.std()) if len(values) > 1 else 0.0)
                passed = self.accepted(longer, apart) | (position == 0)  # which all blocks have told already
                passed &= values <= values.sort().values[min(size, len(values)) - 1]
            else:
                passed = self.inside(longer, apart, last=True)
            parent = torch.arange(len(texts)).repeat_interleave(len(tokens))
            total, exact = sums[parent] + values, passed & sure[parent]
            ended = sure & ~torch.zeros(len(texts), dtype=torch.bool).index_fill(0, parent[exact], True)
            found += [(texts[row], float(sums[row]) / position) for row in torch.nonzero(ended).flatten() if position]
            rest = self.distinct(longer, total.where(~exact, torch.inf), size)
            self.others += [(longer[row], float(total[row]) / (position + 1)) for row in rest]
            rows = torch.cat([torch.nonzero(exact).flatten(), torch.tensor(rest, dtype=torch.long)])
            texts, sums, sure = longer[rows], total[rows], exact[rows]
        length = max(1, texts.shape[1])
        return found + [(texts[row], float(sums[row]) / length) for row in torch.nonzero(sure).flatten()]

    def distinct(self, texts: Tensor, values: Tensor, most: int) -> list[int]:
        """Return the rows of the texts of least value, of which no two are alike; none of infinite value."""
        rows, left = list[int](), values.clone()
        while len(rows) < most and float(left.min()) < torch.inf:
            rows.append(int(left.argmin()))
            left[self.alike(texts, texts[rows[-1]])] = torch.inf
            left[rows[-1]] = torch.inf
        return rows


def logit(distance: Tensor) -> Tensor:
    """Return ``log d - log(1 - d)`` of distances between 0 and 1."""
    return distance.clamp(1e-12, 1 - 1e-12).logit()
