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
many combinations. Here they are searched, as the paper does not:

- Random combinations rank tokens and ends by the mean :math:`d_2` of their position, over ``contexts`` combinations
  each, and then again within texts of the likeliest ones.
- A beam of texts of each length changes one position after the other, in random order, to whichever candidate has the
  least mean :math:`d_2`. Its first starts take the likeliest ends and candidates, twice as many as the batch has texts;
  after every ``starts`` these are twice as many. At every other start tokens of texts that were found of this length
  come last.
- ``max_combinations`` bounds how many texts are tested. The closest that were met are returned then.

What is missing from a batch is filled with the closest other texts, of which no two agree in ``overlap`` or more of
their tokens. A difference of parameters (several local steps) has its rank raised by ``rank_raise`` and both thresholds
at ``delta_threshold``. With ``noisy`` thresholds give way to outliers: the mean of :math:`\log d_l - \log(1 - d_l)` is
``outlier`` standard deviations below that of all that are tested (of causal attention at the first position and for
texts; elsewhere the closest tokens stay). Labels are not needed.

The last block of a classifier tells little: of its query the token that is classified, of key and value as many sums of
tokens as it has heads. An encoder needs a third block.

The official code cuts the singular value decomposition off at random projections (here it is exact, in float64), gives
its tolerances as absolute singular values, tries combinations of the batch size's closest tokens, and matches answers
with replacement; mibench matches them one to one.
"""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import nn

from mibench.access import GradientsView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.encoder_reader import EncoderReader
from mibench.attacks.families.span_reader import CausalReader, SpanReader
from mibench.errors import IncompatibleCellError
from mibench.model import Attention
from mibench.optim.spans import Span, numerical_rank
from mibench.options import Count, CountOrNone, Fraction, Positive, Several
from mibench.tasks import get_task

log = logging.getLogger("mibench")

#: Blocks whose rank is looked at.
RANKED = 10

#: The largest batch size of a relative tolerance: the README of the official code, in shares of the largest value.
TOLERANCES = ((2, 1e-5), (16, 1e-6), (None, 1e-7))


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

    def reader(self, view: GradientsView, attention: Attention, number: int) -> SpanReader | None:
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
        guessed = rank >= most and not view.deltas and not self.noisy
        if guessed or most < 1 or not rank:
            log.warning(
                "Message %d cannot be read: its tokens span %d dimensions, and fewer than %d (the width of the model "
                "minus attack.rank_cutoff) are needed.", number, rank, most,
            )  # fmt: skip
            return None
        rank = min(rank + self.rank_raise * view.deltas, most)
        spans = [Span.of(one, rank) for one in gradients[: self.layers]]
        kind_of_reader = CausalReader if attention.causal else EncoderReader
        return kind_of_reader(self, view, attention, spans, self.draws(torch.device("cpu"), "contexts", number))
