"""Moves of whole tokens inside a text, and the tokens whose places are known (LAMP, Balunović et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.data import InputSpec

#: A token whose place in a text is not known.
FREE = -1


def framed(lengths: Tensor | None, spec: InputSpec, texts: int, device: torch.device) -> Tensor:
    """Return the tokens whose places are known, :data:`FREE` elsewhere, shape ``(texts, tokens)``.

    The first token is what the tokenizer begins every text with. Where lengths are known, what it ends a text with
    stands at the end of each, and padding behind. Without a tokenizer padding alone is known.

    Args:
        lengths: Tokens of every text, those at both ends among them, shape ``(texts,)``; None where nobody knows.
        spec: The input, with its tokenizer.
        texts: Number of texts.
        device: Where the answer lies.
    """
    tokens = spec.shape[0]
    places = torch.arange(tokens, device=device)
    known = torch.full((texts, tokens), FREE, device=device)
    frame = [] if spec.tokenizer is None else list(spec.tokenizer.encode(""))
    if frame:
        known[:, 0] = frame[0]
    if lengths is not None:
        ends = lengths.to(device)[:, None]
        if len(frame) > 1:
            known = torch.where(places == ends - 1, frame[-1], known)
        known = torch.where(places >= ends, spec.padding, known)
    return known


def shuffled(known: Tensor, draws: torch.Generator) -> Tensor:
    """Return positions in a random order in which tokens whose places are known keep them, shape ``(batch, tokens)``.

    Args:
        known: As :func:`framed` returns it, shape ``(batch, tokens)``.
        draws: Random generator on the CPU.
    """
    order = torch.arange(known.shape[1]).repeat(len(known), 1)
    for text, free in enumerate((known == FREE).cpu()):
        places = free.nonzero().flatten()
        order[text, places] = places[torch.randperm(len(places), generator=draws)]
    return order


def moves(known: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Return the positions of a text's tokens after one random move each, shape ``(count, tokens)``; the first is none.

    In turn two words change places, one word moves, a run of words moves, and a beginning moves to the end. Tokens
    whose places are known keep them.

    Args:
        known: As :func:`framed` returns it, of one text, shape ``(tokens,)``.
        count: Number of moves.
        draws: Random generator on the CPU.
    """
    places = (known == FREE).nonzero().flatten().cpu()
    order = torch.arange(len(known)).repeat(count, 1)
    if len(places) > 1:
        for number in range(1, count):
            order[number, places] = places[torch.tensor(moved(len(places), number % 4, draws))]
    return order


def moved(words: int, kind: int, draws: torch.Generator) -> list[int]:
    """Return the numbers 0 .. words - 1 after a random move.

    Args:
        words: How many, at least 2.
        kind: 0: two change places; 1: one moves; 2: a run moves; 3: a beginning moves to the end.
        draws: Random generator on the CPU.
    """

    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=draws))

    order = list(range(words))
    if kind == 0:
        i, j = below(words), below(words)
        order[i], order[j] = order[j], order[i]
    elif kind == 1:
        order.insert(below(words), order.pop(below(words)))
    elif kind == 2:
        begin, end = sorted((below(words + 1), below(words + 1)))
        run, rest = order[begin:end], order[:begin] + order[end:]
        place = below(len(rest) + 1)
        order = rest[:place] + run + rest[place:]
    else:
        begin = below(words)
        order = order[begin:] + order[:begin]
    return order
