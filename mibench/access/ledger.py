"""The account of a view: how many examples were sent through the victim, in which phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mibench.errors import BudgetExhausted, QueryRefused

PHASES = ("prepare", "initialise", "optimise", "select")


class Ledger:
    """Counts examples sent through the victim, by phase, and stops the attack when its budget is spent.

    Args:
        budget: The most examples that may be sent, forward or with gradient; None for no limit.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.phase = "optimise"
        self._queries = dict.fromkeys(PHASES, 0)
        self._gradients = dict.fromkeys(PHASES, 0)

    @property
    def queries(self) -> int:
        """Examples sent through the victim, with or without a gradient."""
        return sum(self._queries.values())

    @property
    def gradient_evals(self) -> int:
        """Examples for which a gradient was taken."""
        return sum(self._gradients.values())

    def charge(self, examples: int, gradient: bool) -> None:
        """Add ``examples`` to the current phase.

        Raises:
            BudgetExhausted: If they would exceed the budget; nothing is charged then.
        """
        if self.budget is not None and self.queries + examples > self.budget:
            raise BudgetExhausted(f"The attack's budget of {self.budget} queries is spent.")
        self._queries[self.phase] += examples
        self._gradients[self.phase] += examples * gradient

    def state(self) -> dict[str, dict[str, int]]:
        """Return the counts as plain data, for a manifest."""
        return {"queries": dict(self._queries), "gradients": dict(self._gradients)}

    @contextmanager
    def answered(self, examples: int) -> Iterator[None]:
        """Charge examples that the service is asked inside the block; what it refuses is not counted as a query."""
        self.charge(examples, gradient=False)
        try:
            yield
        except QueryRefused:
            self._queries[self.phase] -= examples
            raise

    def affords(self, state: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the budget has room for the counts of an earlier run."""
        return self.budget is None or self.queries + sum(state["queries"].values()) <= self.budget

    def replay(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of an earlier run, so that a cached result costs what the cold one did."""
        for phase in PHASES:
            self._queries[phase] += state["queries"][phase]
            self._gradients[phase] += state["gradients"][phase]

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Put the counts where they stood when a run was interrupted that now goes on."""
        self._queries, self._gradients = dict(state["queries"]), dict(state["gradients"])


@contextmanager
def uncounted(ledger: Ledger) -> Iterator[None]:
    """Let what has been charged already, or is no query, pass through the counted module for free."""
    before = ledger.state(), ledger.budget
    ledger.budget = None
    try:
        yield
    finally:
        ledger._queries, ledger._gradients = before[0]["queries"], before[0]["gradients"]
        ledger.budget = before[1]
