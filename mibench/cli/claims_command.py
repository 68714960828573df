"""``mibench claims``: what the committed rows say of every claim, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.cli.stored import results_folder
from mibench.cli.table import print_table
from mibench.errors import UserError
from mibench.leaderboard.claims import Judgement, claims_in, effect, judge
from mibench.leaderboard.collect import collect_studies, told_aside
from mibench.leaderboard.groups import groups_of


def run(words: Sequence[str]) -> int:
    """Print id, verdict, effect with its interval, targets and seeds of every claim, or of those that are named."""
    results = results_folder([word for word in words if "=" in word])
    named = [word for word in words if "=" not in word]
    claims = claims_in(results)
    if odd := sorted(set(named) - {one.id for one in claims}):
        raise UserError(f"There is no claim '{odd[0]}' below {results}/claims.")
    groups = groups_of(told_aside(collect_studies(results)).table)
    chosen = [one for one in claims if not named or one.id in named]
    if not chosen:
        raise UserError(f"There is no claim below {results}/claims.")
    print_table([("claim", "verdict", "effect", "n", "seeds", ""), *(_line(judge(one, groups)) for one in chosen)])
    return 0


def _line(one: Judgement) -> tuple[str, ...]:
    return one.claim.id, one.verdict, effect(one), str(one.n or ""), str(one.seeds or ""), one.remarks
