"""DAGER's test of a vocabulary against a loop over its tokens: ``python benchmarks/span_test.py``.

30,522 tokens of width 384, as of MiniLM, at one position, and a span of rank 54. The loop tests a part of them, one by
one in float64, and what it takes is scaled to all.
"""

from __future__ import annotations

import statistics

import torch
from figures import Figure, report, sized

from mibench.data import InputSpec
from mibench.optim.spans import Span
from mibench.storage.workshop import clock
from mibench.targets.transformer import Transformer

TOKENS = sized(30522, 600)
LOOPED = sized(1500, 100)
WIDTH, RANK, BOUND = 384, 54, 1e-5
PAIRS = sized(5, 1)
LIMIT = 1 / 20


def measure() -> list[Figure]:
    """Return the ratio of both, and what the test of all tokens takes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    model = Transformer(spec=InputSpec("text", (8,), 2, vocabulary=TOKENS), depth=2, width=WIDTH, heads=4).eval()
    exact = Transformer(spec=model.spec, depth=2, width=WIDTH, heads=4).eval().double()
    exact.load_state_dict(model.state_dict())

    def vectors(of: Transformer, ids: torch.Tensor) -> torch.Tensor:
        return of.attention().entering(of.normalise(ids[:, None]), 0, 3)[:, 0]

    ratios, seconds = [], []
    with torch.no_grad():
        known = torch.randperm(TOKENS)[:RANK]
        span = Span.of(vectors(exact, known), RANK)
        for _ in range(PAIRS):
            start = clock(device)
            found, _ = span.close(TOKENS, lambda ids: vectors(model, ids), lambda ids: vectors(exact, ids), BOUND)
            between = clock(device)
            one_by_one = [
                token for token in range(LOOPED) if span.distance(vectors(exact, torch.tensor([token])))[0] < BOUND
            ]
            end = clock(device)
            assert set(found.tolist()) == set(known.tolist()) and set(one_by_one) <= set(found.tolist())
            seconds.append(between - start)
            ratios.append((between - start) / ((end - between) * TOKENS / LOOPED))
    return [
        Figure(f"span test of {TOKENS} tokens at one position: CPU", statistics.median(seconds), "s"),
        Figure("span test of a vocabulary / loop over its tokens", statistics.median(ratios), "x", LIMIT),
    ]


if __name__ == "__main__":
    raise SystemExit(report(measure()))
