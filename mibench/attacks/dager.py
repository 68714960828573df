r"""DAGER: exact gradient inversion for large language models (Petrov et al., NeurIPS 2024).

The gradient of an attention block's query weight is :math:`\sum_t \delta_t a_t^T` over the tokens' vectors :math:`a_t`
that enter it (of the value weight, or of query, key and value together, likewise; of the key weight alone only
differences of tokens are left). Its rows therefore span these vectors, as long as the batch has fewer tokens than the
model is wide. With :math:`R_l` an orthonormal basis of the rows of block :math:`l`

.. math:: d_l(v) = \Bigl\| \frac{v}{\|v\|} - R_l R_l^T \frac{v}{\|v\|} \Bigr\|_2

1. **Rank.** The rank is the largest one of the first ten blocks: the singular values above ``rank_tol`` times the
   largest. If it is the width minus ``rank_cutoff`` or more the text is not guessed, and the answer is missing.
2. **Tokens.** What enters the first block at position :math:`p` depends on one token. Those of the vocabulary with
   :math:`d_1` < ``token_threshold`` are the candidates of :math:`p`; the first position without any ends the texts.
3. **Texts.** What enters the second block depends on a whole text, and of all its tokens :math:`d_2` is below
   ``text_threshold``. Where attention is causal, texts grow token by token, and a text is finished that no candidate
   continues. In an encoder a text ends at a candidate ``[SEP]``.

Token and position are added, so that every token of a batch may pass at positions of others, and encoders have far too
many combinations. Here they are searched, as the paper does not: random combinations rank tokens (the mean :math:`d_2`
of the position, over ``contexts`` combinations each) and ends, and then again within texts of the likeliest ones; then
a beam of texts of each length changes one position after the other to whichever candidate has the least mean
:math:`d_2`. The first start takes the likeliest ends and candidates, twice as many as the batch has texts; every further
start takes twice as many. At every other start tokens of texts that were found of this length come last. ``max_combinations`` bounds how many texts are tested.

What is missing from a batch is filled with the closest other texts, of which no two agree in ``overlap`` or more of
their tokens. A difference of parameters (several local steps) has its rank raised by ``rank_raise`` and both thresholds
at ``delta_threshold``. With ``noisy`` thresholds give way to outliers: the mean of
:math:`\log d_l - \log(1 - d_l)` is ``outlier`` standard deviations below that of all that are tested (of causal
attention at the first position and for texts; elsewhere the closest tokens stay). Labels are not needed.

The last block of a classifier tells little: of its query the token that is classified, of key and value as many sums of
tokens as it has heads. An encoder needs a third block.

The official code cuts the singular value decomposition off at random projections (here it is exact, in float64), gives
its tolerances as absolute singular values, tries combinations of the batch size's closest tokens, and matches answers
with replacement; mibench matches them one to one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.errors import IncompatibleCellError
from mibench.model import Attention, Classifier
from mibench.optim.spans import Span, numerical_rank
from mibench.options import Count, CountOrNone, Fraction, Positive, Several
from mibench.tasks import get_task

log = logging.getLogger("mibench")

#: Blocks whose rank is looked at.
RANKED = 10

#: The largest batch size of a relative tolerance: the README of the official code, in shares of the largest value.
TOLERANCES = ((2, 1e-5), (16, 1e-6), (None, 1e-7))

#: Texts that are tested at once.
AT_ONCE = 256


class Dager(Attack[GradientsView, InstanceGoal]):
    """Tokens and then texts whose vectors lie in the span of the gradient of attention."""

    card = AttackCard(
        name="dager",
        title="DAGER",
        modalities=("text",),
        year=2024,
        code="https://github.com/insait-institute/dager-gradient-inversion",
        fidelity="official",
        family="closed form",
        task="sequence",
        access=("gradients",),
    )
    length = ()

    layers: Several = 2
    """Blocks that are read, from the first on."""
    reads: Literal["query", "value", "joint"] | None = None
    """Whose gradient is read; null: ``joint`` where attention is causal, else ``query``."""
    rank_tol: Positive | None = None
    """Share of the largest singular value from which one counts; null: 1e-5, from 3 texts on 1e-6, from 17 on 1e-7."""
    rank_cutoff: CountOrNone = 20
    """How far below the width of the model the rank must be."""
    rank_raise: CountOrNone = 60
    """What is added to the rank of a message of several local steps."""
    token_threshold: Positive = 1e-5
    """Distance below which a token is a candidate."""
    text_threshold: Positive = 1e-3
    """Distance below which all tokens of a text must be."""
    delta_threshold: Positive = 5e-3
    """Both distances of a message of several local steps."""
    noisy: bool = False
    """Whether messages hold noise, so that outliers are looked for instead."""
    outlier: Positive = 5.0
    """Standard deviations below the mean from which a distance is one."""
    contexts: Count = 8
    """Random texts, of an encoder's candidates, that each token is ranked by."""
    beam: Count = 8
    """Texts of an encoder, of each length, that are changed at once."""
    starts: Count = 4
    """Starts of an encoder's beam at every number of candidates."""
    sweeps: Count = 3
    """Passes over the positions from one start, of an encoder."""
    overlap: Fraction = 0.7
    """Share of the tokens from which two texts are taken for one."""
    max_combinations: Count = 10_000_000
    """The most texts of a message that are tested in the second block."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the texts behind every message; those of a message with too many tokens are missing.

        Raises:
            IncompatibleCellError: If the target has no attention, or messages hold no gradient of it.
        """
        attention = view.model.attention()
        if attention is None or len(attention.blocks) < self.layers:
            raise IncompatibleCellError(
                f"attack=dager reads the gradients of {self.layers} blocks of attention, which the target does not "
                "have; choose target=transformer or target=minilm."
            )
        answer = get_task(self.card.task).blank(goal, view.spec)
        answer = Reconstruction(answer.values, answer.target, None, answer.valid, torch.full((len(answer),), torch.inf))
        self.keep(lambda: answer)
        for number in self.steps(len(view.messages)):
            reader = self.reader(view, attention, number)
            if reader is None:
                continue
            for place, (text, value) in enumerate(reader.texts(), number * view.batch_size):
                answer.values[place, : len(text)] = torch.tensor(text)
                assert answer.valid is not None and answer.loss is not None
                answer.valid[place], answer.loss[place] = True, value
        return answer

    def reader(self, view: GradientsView, attention: Attention, number: int) -> Reader | None:
        """Return what reads message ``number``; None, with a warning, where it holds too many tokens."""
        kind = self.reads or ("joint" if attention.causal else "query")
        message, gradients = view.messages[number], []
        for block in attention.blocks[:RANKED]:
            if missing := [rows.name for rows in block[kind] if rows.name not in message]:
                raise IncompatibleCellError(
                    f"attack=dager reads the gradient of {missing[0]}, which clients do not send (a frozen or a "
                    "personal parameter)."
                )
            gradients.append(torch.cat([message[rows.name][rows.start : rows.stop] for rows in block[kind]]))
        tolerance = self.rank_tol or next(t for most, t in TOLERANCES if most is None or view.batch_size <= most)
        rank = max(numerical_rank(one, tolerance) for one in gradients)
        most = gradients[0].shape[1] - self.rank_cutoff
        if rank >= most and not view.deltas and not self.noisy or most < 1 or not rank:
            log.warning(
                "Message %d cannot be read: its tokens span %d dimensions, and fewer than %d (the width of the model "
                "minus attack.rank_cutoff) are needed.", number, rank, most,
            )  # fmt: skip
            return None
        rank = min(rank + self.rank_raise * view.deltas, most)
        spans = [Span.of(one, rank) for one in gradients[: self.layers]]
        return Reader(self, view, attention, spans, self.draws(torch.device("cpu"), "contexts", number))


@dataclass
class Reader:
    """Reads one message.

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

    attack: Dager
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
        found = self.grown(candidates) if self.attention.causal else self.combined(candidates)
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

    def tokens(self) -> list[Tensor]:
        """Return the candidates of every position up to the first that has none, the closest first."""
        found, vocabulary = [], self.view.spec.vocabulary
        for position in range(self.view.spec.shape[0]):
            if self.attack.noisy:
                kept = self.outlying(position)
            else:
                coarse, exact = (
                    lambda ids, model=model: self.vectors(model, ids[:, None], 0, position)[:, 0]
                    for model in (self.view.model, self.exact)
                )
                kept = self.spans[0].close(vocabulary, coarse, exact, self.bounds[0])[0]
            if not len(kept):
                break
            found.append(kept.cpu())
        return found

    def outlying(self, position: int) -> Tensor:
        """Return the closest tokens at a position, at most 50 a text or 5 % of the vocabulary, as far as outliers.

        At the first position of causal attention all blocks tell of a token alone. At later ones the closest tokens
        stay, for texts tell outliers from them.
        """
        vocabulary, size = self.view.spec.vocabulary, self.view.batch_size
        ids = torch.arange(vocabulary, device=self.view.device)[:, None]
        alone = len(self.spans) if self.attention.causal and not position else 1
        apart = [
            torch.cat([
                span.distance(self.vectors(self.exact, part, block, position)[:, 0]) for part in ids.split(AT_ONCE * 8)
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
        """Return which texts' tokens lie in the spans, shape ``(N,)``; those that seem to are tested in float64."""
        if self.attack.noisy:
            return self.values(apart) < self.level[0] - self.attack.outlier * self.level[1]
        passed = (apart.nan_to_num() < 2 * self.bounds[1]).flatten(1).all(1)
        if passed.any():
            again = self.apart(ids[passed], self.exact)
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

    # Causal attention: what enters the second block at a position depends on what stands before it

    def grown(self, candidates: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
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
                passed = self.passing(longer, apart)
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

    def passing(self, texts: Tensor, apart: Tensor) -> Tensor:
        """Return of which texts the last token lies in the spans; those that seem to are tested in float64."""
        passed = (apart < 2 * self.bounds[1]).flatten(1).all(1)
        if passed.any():
            again = self.apart(texts[passed], self.exact)[:, :, -1:]
            passed[passed.clone()] = (again < self.bounds[1]).flatten(1).all(1)
        return passed

    def distinct(self, texts: Tensor, values: Tensor, most: int) -> list[int]:
        """Return the rows of the texts of least value, of which no two are alike; none of infinite value."""
        rows, left = list[int](), values.clone()
        while len(rows) < most and float(left.min()) < torch.inf:
            rows.append(int(left.argmin()))
            left[self.alike(texts, texts[rows[-1]])] = torch.inf
            left[rows[-1]] = torch.inf
        return rows

    # Encoders: what enters the second block depends on the whole text

    def combined(self, candidates: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
        """Return the accepted texts of combinations of candidates, with their values."""
        size, found, best = self.view.batch_size, list[tuple[Tensor, float]](), dict[int, float]()
        ranked, ends = self.ranked(candidates)
        few, most = 2 * size, max(max(map(len, ranked)), len(ends))
        for number in range(self.attack.starts * (1 + (most // few).bit_length())):
            wider, again = few << number // self.attack.starts, number % self.attack.starts
            ends.sort(key=lambda end: best.get(end, 1.0))
            waiting = ends[: wider // (1 + bool(again))]
            while waiting and len(found) < size and self.room(1):
                end = waiting.pop(0)
                same = [text for text, _ in found if self.ending(text) == end]
                lists = self.choices(ranked, end, wider, [] if number % 2 else same)
                if lists and (text := self.search(lists, end, same, best)) is not None:
                    found.append(text)
                    waiting.append(end)  # where another text of this length may end
        return found

    def ranked(self, candidates: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
        """Return candidates and ends, the likeliest first: by the mean distance of a position in random texts.

        Every token is ranked in random combinations, and then again in texts of the likeliest ones with a likely end.
        """
        most, few = max(map(len, candidates)), 4 * self.view.batch_size
        texts = self.drawn(candidates, self.room(most * self.attack.contexts if most > 1 else 1))
        apart = self.apart(texts)
        values = self.values(apart)
        self.level = (float(values.mean()), float(values.std())) if len(texts) > 1 else (0.0, 0.0)
        self.others += [(texts[row], float(values[row])) for row in values.argsort()[: self.view.batch_size]]
        ranked, ends = self.ordered(candidates, texts, apart)
        if most == 1 or not self.room(1):
            return ranked, ends
        lists = [found for end in ends[:few] if (found := self.choices(ranked, end, few))]
        texts = torch.cat([self.drawn(one, self.room(2 * self.attack.contexts)) for one in lists])
        return self.ordered(ranked, texts, self.apart(texts)) if lists else (ranked, ends)

    def drawn(self, lists: Sequence[Tensor], count: int) -> Tensor:
        """Return random texts of given candidates, each of which comes equally often, shape ``(count, tokens)``."""
        texts = torch.full((count, self.view.spec.shape[0]), self.view.spec.padding)
        for position, tokens in enumerate(lists):
            orders = [torch.randperm(len(tokens), generator=self.draws) for _ in range(-(-count // len(tokens)))]
            if orders:
                texts[:, position] = tokens[torch.cat(orders)[:count]]
        return texts

    def ordered(self, lists: Sequence[Tensor], texts: Tensor, apart: Tensor) -> tuple[list[Tensor], list[int]]:
        """Return candidates and ends by their mean distance in texts; those that stand in none keep their order."""
        found, ends = [], dict[int, float]()
        for position, tokens in enumerate(lists):
            at, here = apart[:, :, position].nanmean(1), texts[:, position]
            means = torch.stack([at[here == token].nanmean() for token in tokens]).nan_to_num(torch.inf)
            found.append(tokens[means.argsort(stable=True)])
            if (at_end := tokens == self.end).any():
                ends[position] = float(means[at_end][0])
        return found, sorted(ends, key=lambda place: ends[place]) if self.end >= 0 else [len(lists) - 1]

    def ending(self, text: Tensor) -> int:
        """Return the position of the last token of a text, padding left out."""
        return int(torch.nonzero(text != self.view.spec.padding).max())

    def choices(self, ranked: Sequence[Tensor], end: int, few: int, known: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the candidates of every position of a text with an end, at most ``few``; none where one has none.

        Tokens of ``known`` texts come last.
        """
        outside, lists = torch.tensor([self.start, self.end, self.view.spec.padding]), []
        for position, tokens in enumerate(ranked[: end + 1]):
            if self.end >= 0:
                special = self.start if position == 0 else self.end if position == end else None
                tokens = tokens[~torch.isin(tokens, outside)] if special is None else tokens[tokens == special]
            used = torch.isin(tokens, torch.tensor([int(text[position]) for text in known], dtype=torch.long))
            lists.append(torch.cat([tokens[~used], tokens[used]])[:few])
        return lists if all(len(tokens) for tokens in lists) else []

    def search(
        self, lists: Sequence[Tensor], end: int, same: Sequence[Tensor], best: dict[int, float]
    ) -> tuple[Tensor, float] | None:
        """Return a text of these candidates that is accepted, with its value; None where the beam settles before.

        Texts that are like one of ``same``, those found of this length, are passed over. ``best`` keeps the least value of every end.
        """
        width = self.attack.beam
        texts, values = self.drawn(lists, width), torch.zeros(0)
        for _ in range(self.attack.sweeps):
            before = texts
            open_ = [place for place, tokens in enumerate(lists) if len(tokens) > 1] or [0]
            for position in [open_[place] for place in torch.randperm(len(open_), generator=self.draws).tolist()]:
                tried = texts[:, None].repeat(1, len(lists[position]), 1)
                tried[:, :, position] = lists[position]
                tried = tried.flatten(0, 1).unique(dim=0)
                for one in same:
                    tried = tried[~self.alike(tried, one)]
                tried = tried[: self.room(len(tried))]
                if not len(tried):
                    return None
                apart = self.apart(tried)
                values, order = self.values(apart).sort()
                if (passed := self.accepted(tried, apart)).any():
                    row = next(row for row in order.tolist() if passed[row])
                    return tried[row], float(self.values(apart[row : row + 1]))
                texts, values = tried[order[:width]], values[:width]
            if torch.equal(before, texts):
                break
        best[end] = min(best.get(end, 1.0), float(values[0]))
        self.others += [(text, float(value)) for text, value in zip(texts, values, strict=True)]
        return None


def logit(distance: Tensor) -> Tensor:
    """Return ``log d - log(1 - d)`` of distances between 0 and 1."""
    return distance.clamp(1e-12, 1 - 1e-12).logit()
