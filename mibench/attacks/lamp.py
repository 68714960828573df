r"""LAMP: text from gradients with language-model priors (Balunović et al., NeurIPS 2022).

The attacker knows the global model, the labels (or reads them off) and how long every text is. It searches embeddings
:math:`u` of a client's texts whose gradient is that of the message, in turns with moves of whole tokens that a language
model judges.

1. *Start*: of ``candidates`` draws :math:`u \sim N(0, I)` the one whose gradient is nearest, then of as many random
   orders of its words the nearest; every word is scaled to the length :math:`s` of an embedding.
2. *Continuous steps*: Adam on :math:`D(u) + c_\text{reg} \big( \operatorname{mean}_i \|u_i\|_2 - s \big)^2`, whose step
   size falls to ``fade`` of itself every ``fade_every`` steps. After each step the embeddings of ``[CLS]``, ``[SEP]``
   and ``[PAD]`` are put back in their places.
3. *Discrete steps*, every ``every`` steps once a share ``burn_in`` of them is over: for one text after the other, of
   ``proposals`` moves of words (two change places; one moves; a run of them moves; a beginning moves to the end) or
   none the one with the lowest :math:`D(u) + c_\text{lm} \cdot L(\text{tokens})`, where the tokens are those of the
   largest cosine and :math:`L` is the language model's mean loss per token.

The answer is the embeddings of the lowest continuous objective, read off by the largest cosine.

:math:`D` is the mean over tensors of :math:`1 - \cos(g_l, g_l^*)` (``matching=layer_cosine``) or :math:`\sum_l
\|g_l - g_l^*\|_2^2 + \alpha \|g_l - g_l^*\|_1` (``squared_absolute``, the entry ``lamp_l1l2``). The table of embeddings
takes no part in it, as in TAG; ``embedding_rows`` uses it to say which words there are.

Official code: https://github.com/eth-sri/lamp. Deviations: the language model is of bigrams in the attacker's public
texts, where the code has a GPT-2 trained on WikiText-103. It scores a text up to its ``[SEP]``; the code scores padding
as well. Embeddings are kept together with their own loss; the code keeps the loss before a step together with the
embeddings after it. Orders and moves stay within a text's own words; the code also moves the padding of shorter texts.
Unless ``norm`` says another one, :math:`s` is the mean length in the model's own table (1.4 is BERT's).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.nn.bigrams import Bigrams
from mibench.optim.gradient_distance import absolute, layer_cosine, squared
from mibench.optim.input_space import Embeddings, present_tokens
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Found, Sent, in_parts
from mibench.optim.row_adam import Adam, norm_at_most
from mibench.optim.token_moves import FREE, framed, moves, shuffled
from mibench.options import Count, Decay, NonNegative, Positive, Share


class Lamp(GradientSearch):
    """Search of token embeddings in turns with moves of tokens that a language model judges."""

    card = AttackCard(
        name="lamp",
        title="LAMP",
        modalities=("text",),
        year=2022,
        code="https://github.com/eth-sri/lamp",
        fidelity="official",
        family="gradient matching",
        task="sequence",
        access=("gradients",),
        needs=("public",),
        uses=("labels", "lengths", "local_training"),
    )
    length = ("iterations",)

    matching: Literal["layer_cosine", "squared_absolute"] = "layer_cosine"
    """Distance of gradients: ``layer_cosine`` (LAMP-cos) or ``squared_absolute`` (LAMP-L1L2)."""
    alpha: NonNegative = 0.01
    """Weight of the absolute distance in ``squared_absolute``."""
    candidates: Count = 500
    """Draws that the start is chosen from, and orders of its words."""
    norm: Positive | None = None
    """Length of an embedding; null takes the mean length in the model's table."""
    iterations: Count = 2000
    """Continuous steps."""
    lr: Positive = 0.01
    """Step size."""
    fade: Decay = 0.89
    """What the step size is multiplied by at a time."""
    fade_every: Count = 50
    """Steps from one such time to the next."""
    regularisation: NonNegative = 1.0
    """Weight of the embeddings' length."""
    language: NonNegative = 0.2
    """Weight of the language model."""
    burn_in: Share = 0.1
    """Share of the steps before the first moves."""
    every: Count = 75
    """Steps from one round of moves to the next."""
    proposals: Count = 200
    """Moves tried of each text in a round; the first of them is none."""
    clip: Positive | None = None
    """Largest norm of a problem's gradient; null clips none (0.5 for BERT-large)."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    embedding_rows: bool = False
    """Whether only tokens are read off whose embedding has a gradient."""

    def distance_of(self, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem, shape ``(n,)``, over the tensors of ``theirs``."""
        if self.matching == "layer_cosine":
            return layer_cosine(ours, theirs)
        return squared(ours, theirs) + self.alpha * absolute(ours, theirs)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the texts behind every message."""
        search = TextSearch(self, view, knowledge)
        problems, found = search.problems, Found(search.problems)
        self.keep(lambda: self.answer(view, goal, found, search.labels, search.space()))
        start = torch.stack([search.start(row, *self.draws_of(view, row)) for row in problems.rows])
        draws = [self.draws(torch.device("cpu"), "moves", row) for row in problems.rows.tolist()]
        taken = itertools.count()

        def after(rows: Tensor, variables: Sequence[Tensor]) -> Sequence[Tensor]:
            """Put known tokens back after a step, and move words after those steps that are followed by it."""
            u, step = search.fixed(rows, variables[0]), next(taken)
            if step >= self.burn_in * self.iterations and step % self.every == 1:
                u = torch.stack([search.moved(row, one, draws[int(row)]) for row, one in zip(rows, u, strict=True)])
            return [u]

        adam = Adam(self.iterations, self.lr, fade=self.fade, fade_every=self.fade_every)
        clip = None if self.clip is None else norm_at_most(self.clip)
        adam.minimise(search.objective, [start], found, self.steps(self.iterations), project=after, reshape=clip)
        return self.answer(view, goal, found, search.labels, search.space())

    def draws_of(self, view: GradientsView, row: Tensor) -> tuple[torch.Generator, torch.Generator]:
        """Return the random generators of a problem's first embeddings and of the orders of its words."""
        return self.draws(view.device, "embeddings", int(row)), self.draws(torch.device("cpu"), "orders", int(row))


class TextSearch:
    """What the search of one cell's texts knows, and its objectives.

    Args:
        attack: The options.
        view: The clients' messages.
        knowledge: Public texts, labels and lengths.

    Attributes:
        labels: Class ids behind the messages, shape ``(messages, batch)``.
        known: Tokens whose places are known, shape ``(messages, batch, tokens)``.
        problems: The rows of the search.
    """

    def __init__(self, attack: Lamp, view: GradientsView, knowledge: Knowledge) -> None:
        self.attack, self.soft = attack, view.relaxed()
        self.labels, self.problems = attack.labels(view, knowledge), attack.problems(view)
        self.sent = Sent(self.soft.messages, self.problems)
        lengths = knowledge.fact("lengths") if knowledge.granted("lengths") else None
        known = framed(lengths, view.spec, self.labels.numel(), view.device)
        self.known = known.unflatten(0, self.labels.shape)
        every = torch.ones(len(view.messages), view.spec.vocabulary, dtype=torch.bool, device=view.device)
        allowed = present_tokens(view) if attack.embedding_rows else every
        allowed[:, known[known != FREE].unique()] = False  # which stand nowhere else
        self._space = Embeddings.of(view, allowed)
        self.length = attack.norm or float(self._space.table.norm(dim=1).mean())
        self.language = Bigrams(knowledge.public.x.to(view.device), view.spec.vocabulary, view.spec.padding)
        self.shape = (view.batch_size, *view.spec.shape, self._space.table.shape[1])

    def space(self, messages: Tensor | slice = slice(None)) -> Embeddings:
        """Return the space of the texts of messages, with the tokens that may be read off of each."""
        assert self._space.allowed is not None
        return dataclasses.replace(self._space, allowed=self._space.allowed[messages], known=self.known[messages])

    def apart(self, rows: Tensor, u: Tensor) -> Tensor:
        """Return how far the gradients of embeddings ``(n, batch, tokens, width)`` are from the messages, ``(n,)``."""
        return self.attack.distance_of(
            self.soft.updates(u, self.labels[self.problems.message(rows)]), self.sent.of(rows)
        )

    def objective(self, rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is descended, which is also what the best point is kept by, shape ``(n,)`` twice."""
        lengths = u.norm(dim=-1).flatten(1).mean(1)
        value = self.apart(rows, u) + self.attack.regularisation * (lengths - self.length).square()
        return value, value

    def fixed(self, rows: Tensor, u: Tensor) -> Tensor:
        """Return embeddings with those of known tokens in their places."""
        known = self.known[self.problems.message(rows).to(u.device)]
        return torch.where((known != FREE)[..., None], self._space.table[known.clamp_min(0)], u)

    def distances(self, row: Tensor, tried: Tensor) -> Tensor:
        """Return the distances of many points ``(n, batch, tokens, width)`` of one problem, shape ``(n,)``."""
        parts = in_parts(row.expand(len(tried)), [tried], self.problems.at_once)
        return torch.cat([self.apart(part, u).detach() for part, (u,) in parts])

    def start(self, row: Tensor, draws: torch.Generator, orders: torch.Generator) -> Tensor:
        """Return the nearest order of the nearest draw, its words scaled, shape ``(batch, tokens, width)``."""
        known = self.known[self.problems.message(row)]

        def draw(count: int) -> Tensor:
            drawn = torch.stack([torch.randn(self.shape, generator=draws, device=known.device) for _ in range(count)])
            return self.fixed(row.expand(count), drawn)

        def reorder(count: int) -> Tensor:
            return reordered(drawn, torch.stack([shuffled(known, orders) for _ in range(count)]).to(known.device))

        drawn, least = self.nearest(row, draw)
        near, least_reordered = self.nearest(row, reorder)
        near = near if least_reordered < least else drawn
        scaled = self.length * nn.functional.normalize(near, dim=-1)
        return torch.where((known != FREE)[..., None], near, scaled)

    def nearest(self, row: Tensor, make: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the nearest of ``candidates`` points of one problem, and its distance.

        Args:
            row: The problem.
            make: Returns so many further points ``(count, batch, tokens, width)``.
        """
        best, least = torch.empty(0), torch.tensor(torch.inf)
        for number in range(0, self.attack.candidates, self.problems.at_once):
            tried = make(min(self.problems.at_once, self.attack.candidates - number))
            distances = self.distances(row, tried)
            place = distances.argmin()
            if not len(best) or bool(distances[place] < least):
                best, least = tried[place], distances[place]
        return best, least

    def moved(self, row: Tensor, u: Tensor, draws: torch.Generator) -> Tensor:
        """Return one problem's embeddings ``(batch, tokens, width)`` after the best move of every text in turn."""
        message = self.problems.message(row)
        tokens = self.space(message[None]).decode(u[None])[0]
        for text, known in enumerate(self.known[message]):
            order = torch.arange(len(known)).repeat(self.attack.proposals, len(u), 1)
            order[:, text] = moves(known, self.attack.proposals, draws)
            order = order.to(u.device)
            tried, read = reordered(u, order), reordered(tokens[..., None], order)[..., 0]
            judged = self.distances(row, tried) + self.attack.language * self.language.loss(read)
            best = judged.argmin()
            u, tokens = tried[best], read[best]
        return u


def reordered(values: Tensor, order: Tensor) -> Tensor:
    """Return values of tokens ``(batch, tokens, ...)`` in orders ``(n, batch, tokens)``, stacked along the first axis.

    One more axis follows that of the tokens.
    """
    return values.expand(len(order), *values.shape).gather(2, order[..., None].expand(-1, -1, -1, values.shape[-1]))
