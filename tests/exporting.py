"""Groups of made-up cells as tables of a paper see them."""

import json
import zlib
from dataclasses import replace

from mibench.leaderboard.exports.crosstab import crosstabs


def nothing(_group):
    """No option differs from the defaults."""
    return ()


def tables(groups, rows="attack", columns="defense", options=nothing, **more):
    return crosstabs(groups, rows, columns, options, **more)


def skipped(group, reason, **facts):
    """The group as if it had been skipped, with another defense for instance."""
    other = like(group, {name: {"name": value} for name, value in facts.items()}, **facts)
    return replace(other, numbers=[], cells=[replace(one, status="skipped", reason=reason) for one in group.cells])


def like(group, config=(), lift=None, **facts):
    """The group as if it had these facts, blocks with these options, and this headline lift."""
    changed = {**group.config, **{key: {**group.config[key], **node} if isinstance(node, dict) else node
                                  for key, node in dict(config).items()}}  # fmt: skip
    numbers = [one if lift is None else replace(one, score=replace(one.score, lift=lift)) for one in group.numbers]
    told = json.dumps([changed, facts], sort_keys=True)
    return replace(group, group_id=f"{zlib.crc32(told.encode()):016x}", facts={**group.facts, **facts},
                   config_json=json.dumps(changed), numbers=numbers)  # fmt: skip
