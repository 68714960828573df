"""Points with intervals, joined by lines: lifts against the accuracy that a defense leaves, or against their cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.leaderboard.compare import number_of
from mibench.leaderboard.eligible import spoilt
from mibench.leaderboard.exports.crosstab import Key, common, comparable
from mibench.leaderboard.exports.labels import Label, Options, labels
from mibench.leaderboard.groups import Group
from mibench.leaderboard.language import COLOURS, WORDS, Tone, order
from mibench.leaderboard.numbers import Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which people who confuse red and green tell apart; black is for what is not defended.
SAFE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))

SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "8")

#: How a point of each tone is filled.
FILLS: Mapping[Tone, str] = {"leak": "full", "open": "left", "calm": "none"}

#: What the undefended victim is called in a legend.
UNDEFENDED = "none (undefended)"

#: What a cost is called on an axis, by its name in a group's costs.
COSTS: Mapping[str, tuple[str, str]] = {
    "queries": ("queries", "examples sent to the victim"),
    "gradients": ("gradient_evals", "gradients of the victim"),
}

#: A panel is drawn into a part of the figure, and says how high it wants to be, in inches, where there is none yet.
Panel = Callable[[Any, float], float]
Panels = tuple[list[Panel], list[tuple[Mapping[str, str], Sequence[str]]]]


def fronts(groups: Sequence[Group], options: Options, key: Key | None, _cost: str) -> Panels:
    """Return panels of lift against the victim's accuracy, both with intervals; levels of a defense are joined."""
    return _panels(groups, options, key, ("attack", "defense"), _front)


def costs(groups: Sequence[Group], options: Options, key: Key | None, cost: str) -> Panels:
    """Return panels of lift against what the attack asked of the victim, on a logarithmic axis."""
    from mibench.planning.length import length_of

    steps: set[str] = set()
    for one in groups:
        try:
            steps |= {f"attack.{name}" for name in length_of(one.config["attack"])}
        except (UserError, KeyError, ImportError, AttributeError):
            continue  # its class is gone: groups of other lengths are other lines
    axes = ("attack", "defense", "budget")

    def drawn(part: Figure, own: Sequence[tuple[Group, Number]], named: Mapping[str, tuple[Label, ...]]) -> None:
        _against_cost(part, own, named, cost)

    return _panels(groups, options, key, axes, drawn, steps | {"budget.gradients", "query_budget"})


def _panels(
    groups: Sequence[Group],
    options: Options,
    key: Key | None,
    axes: Sequence[str],
    draw_one: Callable[[Figure, Sequence[tuple[Group, Number]], Mapping[str, tuple[Label, ...]]], None],
    without: Collection[str] = (),
) -> Panels:
    panels: list[Panel] = []
    told: list[tuple[Mapping[str, str], Sequence[str]]] = []
    for block in comparable(groups, axes):
        own = [(one, number) for one in block if (number := number_of(one, key)) is not None and number.seeds]
        own = [(one, number) for one, number in own if not math.isnan(number.score.lift)]
        if not own:
            continue
        named = labels(block, axes, options, without)

        def panel(part: Figure | None, width: float, own: Any = own, named: Any = named) -> float:
            if part is not None:
                draw_one(part, own, named)
            names = {label.text if place == 0 else label.name
                     for one, _ in own for place, label in enumerate(named[one.group_id][:2])}  # fmt: skip
            return 2.0 + 0.13 * math.ceil((len(names) + 3) / _columns(width))

        panels.append(panel)
        told.append(common(block, axes, options))
    if not panels:
        raise UserError(f"None of the {len(groups)} groups picked has this number with a lift over a control.")
    return panels, told


def _front(part: Figure, own: Sequence[tuple[Group, Number]], named: Mapping[str, tuple[Label, ...]]) -> None:
    axes = part.subplots()
    looks = Looks(part, own, named)
    series: dict[tuple[Label, str], list[tuple[Label, float, float]]] = {}
    for one, number in own:
        attack, defense = named[one.group_id][:2]
        if one.utility is None or math.isnan(one.accuracy) or spoilt(one):
            continue
        right, score = one.utility.score, number.score
        looks.point(axes, one, number, one.accuracy, _ends(right.value, right.ci_low, right.ci_high))
        series.setdefault((attack, defense.name), []).append((defense, one.accuracy, score.lift))
    for (attack, defense_name), points in series.items():
        if len(points) > 1:
            _, xs, ys = zip(*sorted(points), strict=True)
            axes.plot(xs, ys, color=looks.colour(attack, defense_name), linestyle=looks.dashes[attack], zorder=1)
    axes.set_xlabel("accuracy of the model")
    looks.finish(part, axes)


def _against_cost(
    part: Figure, own: Sequence[tuple[Group, Number]], named: Mapping[str, tuple[Label, ...]], cost: str
) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes = part.subplots()
    name, words = COSTS[cost]
    looks = Looks(part, own, named)
    series: dict[tuple[Label, Label], list[tuple[float, float]]] = {}
    for one, number in own:
        attack, defense = named[one.group_id][:2]
        looks.point(axes, one, number, one.cost[name], None)
        series.setdefault((attack, defense), []).append((one.cost[name], number.score.lift))
    for (attack, defense), points in series.items():
        if len(points) > 1:
            xs, ys = zip(*sorted(points), strict=True)
            axes.plot(xs, ys, color=looks.colour(attack, defense.name), linestyle=looks.dashes[attack], zorder=1)
    if any(one.cost[name] <= 0 for one, _ in own):
        axes.set_xscale("symlog", linthresh=1)  # an attack that asks nothing stands at 0
    else:
        axes.set_xscale("log")
    shown = EngFormatter(sep="")  # 20k: powers of ten would need mathematical text
    axes.xaxis.set_major_formatter(shown)
    low, high = axes.get_xlim()
    if low > 0 and high < 20 * low:
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(shown if low > 0 and high < 20 * low else NullFormatter())
    axes.set_xlabel(words)
    looks.finish(part, axes)


class Looks:
    """How attacks, defenses and verdicts look in one panel: colour and dashes, shape, filling.

    Where there is one attack alone, its defenses have the colours.

    Args:
        part: The part of the figure that the panel is.
        own: The groups with their numbers.
        named: Labels of attack and defense by group id.
    """

    def __init__(
        self, part: Figure, own: Sequence[tuple[Group, Number]], named: Mapping[str, tuple[Label, ...]]
    ) -> None:
        self.named, self.own = named, own
        self.width = part.bbox.width / part.dpi
        attacks = sorted({named[one.group_id][0] for one, _ in own})
        defenses = sorted({named[one.group_id][1].name for one, _ in own}, key=lambda name: (name != "none", name))
        self.attacks = attacks
        self.dashes = {one: DASHES[place % len(DASHES)] for place, one in enumerate(attacks)}
        others = [one for one in defenses if one != "none"]
        for what, names, most in (("attacks", attacks, len(SAFE)), ("defenses", others, len(SHAPES))):
            if len(names) > most:
                raise UserError(
                    f"A panel tells {most} {what} apart, but these groups have {len(names)}: pick some with "
                    f"{what.removesuffix('s')}=NAME,NAME, or draw kind=matrix."
                )
        self.shapes = {"none": "*"} | {one: SHAPES[place % len(SHAPES)] for place, one in enumerate(others)}
        self.defenses = defenses
        coloured: list[str | Label] = [*others] if len(attacks) == 1 else [*attacks]
        self.colours: dict[str | Label, str] = {one: SAFE[place % len(SAFE)] for place, one in enumerate(coloured)}

    def colour(self, attack: Label, defense: str) -> str:
        """Return the colour of the groups of an attack and a defense."""
        return self.colours.get(defense, "black") if len(self.attacks) == 1 else self.colours[attack]

    def point(self, axes: Axes, one: Group, number: Number, x: float, across: Any) -> None:
        """Draw one group: its lift with the interval, and whatever interval it has across."""
        attack, defense = self.named[one.group_id][:2]
        score = number.score
        tone = WORDS[number.verdict].tone if number.verdict in WORDS else "calm"
        drawn = axes.errorbar(
            [x], [score.lift], yerr=_ends(score.lift, score.lift_low, score.lift_high), xerr=across,
            color=self.colour(attack, defense.name), marker=self.shapes[defense.name], fillstyle=FILLS[tone],
            markerfacecoloralt="white", markersize=8 if defense.name == "none" else 4.5, elinewidth=0.5,
            markeredgewidth=0.7, linestyle="none", zorder=2,
        )  # fmt: skip
        for bar in drawn[2]:
            bar.set_linestyle(self.dashes[attack])

    def finish(self, part: Figure, axes: Axes) -> None:
        """Draw the line at no lift, the label of the lift and the legend."""
        from matplotlib.lines import Line2D

        axes.axhline(0, color="0.6", linewidth=0.5, zorder=0)
        unit = self.own[0][1].score.unit
        axes.set_ylabel(f"lift over control{f' ({unit})' if unit else ''}")
        handles = [
            Line2D([], [], color=self.colour(one, "none"), linestyle=self.dashes[one], label=self._wrapped(one.text))
            for one in self.attacks
        ]
        alone = self.attacks[0] if len(self.attacks) == 1 else None
        handles += [
            Line2D([], [], color=self.colour(alone, one) if alone else "0.2", linestyle="none",
                   marker=self.shapes[one], fillstyle="none", markersize=7 if one == "none" else 4.5,
                   label=UNDEFENDED if one == "none" else one)
            for one in self.defenses
        ]  # fmt: skip
        words = sorted({number.verdict for _, number in self.own if number.verdict in WORDS}, key=order)
        for tone in dict.fromkeys(WORDS[word].tone for word in words):
            said = ", ".join(word for word in words if WORDS[word].tone == tone)
            handles.append(Line2D([], [], color=COLOURS[tone], linestyle="none", marker="H", fillstyle=FILLS[tone],
                                  markerfacecoloralt="white", label=self._wrapped(said)))  # fmt: skip
        part.legend(handles=handles, loc="outside lower center", ncols=_columns(self.width), frameon=False)

    def _wrapped(self, text: str) -> str:
        return textwrap.fill(text, round(self.width * 19 / _columns(self.width)) - 10)


def _columns(width: float) -> int:
    """Return how many columns a legend has in a figure of a width in inches."""
    return max(1, round(width / 1.65))


def _ends(value: float, low: float, high: float) -> list[list[float]] | None:
    """Return how far the ends of an interval lie from its middle, shape ``(2, 1)``; None where there is none."""
    if math.isnan(low) or math.isnan(high):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]
