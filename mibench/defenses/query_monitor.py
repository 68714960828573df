r"""Query monitoring: rate limits, and a detector of query patterns that no honest client shows.

Every client of the service has an account of its own; rows are counted, not calls, and a batch is answered whole or
not at all: an attack whose batches are larger than its allowance gets nothing, which is no merit of the defense, so
lower its batch, as the attacker does who knows the limit. What is refused costs no allowance. Windows end at every
tenth part of their length.

- *Rate limits.* At most ``cap`` answers in all, and a token bucket of ``burst`` answers that refills by ``refill`` per
  second. The clock is simulated, so that results repeat: a client asks ``pace`` examples per second, and does not wait.
- *Detector*, one of three, each a number per window of ``window`` queries that is small where something is wrong:

  - ``near_duplicates``: the mean distance of a query to its ``neighbours``-th nearest earlier one, as in the stateful
    detection of searches by small steps (Chen et al., Stateful Detection of Black-Box Adversarial Attacks, 2020).
  - ``prada``: the Shapiro-Wilk statistic of each query's least distance to earlier ones of the same predicted class,
    without those beyond three deviations (Juuti et al., PRADA: Protecting Against DNN Model Stealing Attacks,
    EuroS&P 2019).
  - ``mmd``: minus the squared maximum mean discrepancy between the window and honest queries, with a Gaussian kernel
    of the median distance.

  A window is flagged below a threshold that lies ``SLACK`` times as far from the median of honest windows as their
  quantile ``false_alarms``, because few data know few strangers. Honest queries are the defender's own data in random
  order, half of them for the threshold; how many windows of the other half are flagged stands in the rows
  (``false_alarms``), and how many of public data, which strangers ask in random order (``false_alarms_strangers``).
  As many queries are remembered as one half has. Distances are those of inputs whose values have deviation 1.

From the batch on in which it is flagged, a client is refused (``block``), answered labels alone (``degrade``), or only
noted (``log``). Rows say what was refused (``queries_refused``) and at which query the client was flagged
(``flagged_at``; -1: never). Utility is that of clients who ask little: each example comes from a client of its own.

It does not protect from an attacker who asks under several names, who waits, or who hides among honest queries: those
are the ones who know of it. Nor from what fits into the allowance.

There is no official code. Inferred: that all detectors look at the input itself where their authors learn an encoder,
that all thresholds are calibrated alike (PRADA's is a constant, 0.90 to 0.95) and with slack, and that PRADA's
distances are taken in windows rather than over all queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import torch
from scipy.stats import shapiro
from torch import Tensor

from mibench.defenses.base import Classifier, Customer, Defense, DefenseCard, DefenseContext
from mibench.errors import QueryRefused, UserError
from mibench.nn.scores import Standard
from mibench.options import Count, Positive, Share

#: Orders in which honest queries are asked for the calibration.
STREAMS = 8

#: How much further than a quantile of honest windows the threshold lies from their median.
SLACK = 2.0

#: Distances of which a statistic can be made.
LEAST = 20


class QueryMonitor(Defense):
    """A service that counts, watches and refuses."""

    card = DefenseCard(
        name="query_monitor",
        title="Query monitoring",
        modalities=("image", "tabular"),
        fidelity="reconstruction",
        hooks=("output",),
        affects=("scores", "labels", "explanations"),
        strength="cap",
        stronger="lower",
        levels=(10000, 1000, 100),
        adaptive=("attack=inversion_network", "attack=inversion_network attack.batch_size=8"),
    )
    remembers = True
    learns_from_public = True

    cap: Count | None = 1000
    """Most answers to one client; None for no limit."""
    burst: Count | None = None
    """Answers at once, the size of the token bucket; None for no limit."""
    refill: Positive = 1.0
    """Answers per second that come back."""
    pace: Positive = 10.0
    """Examples a client asks per second of simulated time."""
    detector: Literal["near_duplicates", "prada", "mmd", "none"] = "near_duplicates"
    """``near_duplicates``, ``prada``, ``mmd`` or ``none``."""
    action: Literal["block", "degrade", "log"] = "block"
    """What happens to a flagged client: ``block``, ``degrade`` or ``log``."""
    neighbours: Count = 50
    """Which nearest earlier query the distance of ``near_duplicates`` is to."""
    window: Count = 100
    """Queries that are judged together."""
    false_alarms: Share = 0.01
    """Share of honest windows below the quantile that the threshold is made of."""
    calibration: Count = 2000
    """Most honest queries that are looked at."""
    learned: dict[str, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the options together."""
        super().__post_init__()
        if self.neighbours >= self.window:
            raise UserError(
                f"Expected defense.neighbours to be below defense.window={self.window}, but got {self.neighbours}."
            )

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Calibrate the detector on streams of the defender's own data.

        Raises:
            UserError: If there are fewer data than three windows.
        """
        if self.detector == "none":
            return
        data = context.data.spare
        data = data[torch.randperm(len(data))[: self.calibration].to(data.y.device)]
        if len(data) < 3 * self.window:
            raise UserError(
                f"Calibrating defense 'query_monitor' takes three windows of honest queries, and there are "
                f"{len(data)}; lower defense.window={self.window} and defense.neighbours, or set defense.detector=none."
            )
        standard, labels = Standard.of(data.x), model.predict_proba(data.x).argmax(1)
        points = standard(data.x)
        honest, half = points[: self.window], (len(points) - self.window) // 2
        self.learned = {"mean": standard.mean, "deviation": standard.deviation, "honest": honest}
        self.learned |= {"width": torch.pdist(honest).median(), "memory": torch.tensor(half)}
        points, labels = points[self.window :], labels[self.window :]
        known, other = (self.honest_windows(points[part], labels[part]) for part in (slice(half), slice(half, None)))
        usual = known.median()
        self.learned["threshold"] = usual - SLACK * (usual - torch.quantile(known, self.false_alarms))
        self.found = {"false_alarms": self.flagged(other)}
        public = context.data.public
        if public is not None and len(public) >= self.window:
            public = public[torch.randperm(len(public))[: self.calibration].to(public.y.device)]
            named = model.predict_proba(public.x).argmax(1)
            self.found["false_alarms_strangers"] = self.flagged(self.honest_windows(standard(public.x), named))

    def flagged(self, windows: Tensor) -> float:
        """Return the share of windows that are taken for an attack."""
        return float((windows < self.learned["threshold"]).double().mean())

    def honest_windows(self, points: Tensor, labels: Tensor) -> Tensor:
        """Return the numbers of all windows of ``STREAMS`` clients who ask all of ``points`` in random order."""
        orders = [torch.randperm(len(points)).to(points.device) for _ in range(STREAMS)]
        return torch.cat([self.watched({}, points[order], labels[order])[1] for order in orders])

    def answer(self, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the probabilities ``(N, classes)``, or those of the label alone to a flagged client.

        Raises:
            QueryRefused: Saying why.
        """
        if customer is None:
            return probabilities
        memory, said, watching = customer.memory, customer.facts, self.detector != "none"
        said.setdefault("queries_refused", 0.0)
        if watching:
            said.setdefault("flagged_at", -1.0)
        reason = self.refusal(memory, len(x))
        if watching and not reason:
            standard = Standard(self.learned["mean"], self.learned["deviation"])
            ends, numbers = self.watched(memory, standard(x.to(probabilities.device)), probabilities.argmax(1))
            alarms = ends[numbers < self.learned["threshold"]]
            if said["flagged_at"] < 0 and len(alarms):
                said["flagged_at"] = float(alarms[0])
        flagged = watching and said["flagged_at"] >= 0
        if flagged and self.action == "block":
            reason = f"its detector of {self.detector} raised the alarm at query {said['flagged_at']:.0f}"
        if reason:
            said["queries_refused"] += len(x)
            raise QueryRefused(f"The service refused a query: {reason}.")
        self.charge(memory, len(x))
        if flagged and self.action == "degrade":
            return torch.zeros_like(probabilities).scatter(1, probabilities.argmax(1, keepdim=True), 1)
        return probabilities

    def refusal(self, memory: dict[str, Tensor], count: int) -> str:
        """Return which limit ``count`` more answers would break; the time in which they are asked passes."""
        answers = memory.get("answers", torch.tensor(0.0))
        if self.cap is not None and answers + count > self.cap:
            return (
                f"a client is given {self.cap} answers (defense.cap), this one has had {answers:.0f}, and a batch of "
                f"{count} is answered whole or not at all"
            )
        if self.burst is not None:
            tokens = memory.get("tokens", torch.tensor(float(self.burst))) + self.refill * count / self.pace
            memory["tokens"] = tokens.clamp_max(self.burst)
            if memory["tokens"] < count:
                return f"a client is given {self.burst} answers at once, and {self.refill:g} a second (defense.burst)"
        return ""

    def charge(self, memory: dict[str, Tensor], count: int) -> None:
        """Take ``count`` answers off the allowance."""
        memory["answers"] = memory.get("answers", torch.tensor(0.0)) + count
        if self.burst is not None:
            memory["tokens"] = memory["tokens"] - count

    def watched(self, memory: dict[str, Tensor], points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return, of all windows that end among new queries, the number of their last query and what they measure.

        Args:
            memory: What is remembered of the client; it is changed.
            points: The queries, standardised, shape ``(N, values)``.
            labels: Their predicted classes, shape ``(N,)``.
        """
        stride, limit = max(1, self.window // 10), int(self.learned["memory"])
        seen, classes = memory.get("points", points[:0]), memory.get("labels", labels[:0])
        values, asked = memory.get("values", points.new_zeros(0)), int(memory.get("asked", torch.tensor(0)))
        ends, numbers = [], []
        for more, named in zip(points.split(stride), labels.split(stride), strict=True):
            seen, classes = torch.cat([seen, more])[-limit:], torch.cat([classes, named])[-limit:]
            values = torch.cat([values, self.distances(seen, classes, len(more))])[-self.window :]
            before, asked = asked, asked + len(more)
            if asked >= self.window and asked // stride > before // stride:
                ends.append(asked)
                numbers.append(self.measure(values, seen[-self.window :]))
        memory |= {"points": seen, "labels": classes, "values": values, "asked": torch.tensor(asked)}
        return torch.tensor(ends), torch.tensor(numbers)

    def distances(self, points: Tensor, labels: Tensor, new: int) -> Tensor:
        """Return the distance of each of the ``new`` last queries to earlier ones, infinite where they are too few."""
        if self.detector == "mmd":
            return points.new_zeros(new)
        places = torch.arange(len(points), device=points.device)
        allowed = places < places[-new:, None]
        if self.detector == "prada":
            allowed = allowed & (labels == labels[-new:, None])
        far = torch.cdist(points[-new:], points).where(allowed, torch.inf)
        nearest = 1 if self.detector == "prada" else self.neighbours
        if nearest > len(points):
            return points.new_full((new,), torch.inf)
        return far.kthvalue(nearest, 1).values

    def measure(self, values: Tensor, points: Tensor) -> float:
        """Return what a window measures, small where something is wrong."""
        if self.detector == "mmd":
            return -float(discrepancy(points, self.learned["honest"], self.learned["width"]))
        values = values[values.isfinite()]
        if self.detector == "near_duplicates":
            return float(values.mean()) if len(values) else torch.inf
        if len(values) < LEAST:
            return torch.inf
        kept = values[(values - values.mean()).abs() <= 3 * values.std()]
        return 0.0 if float(kept.max() - kept.min()) < 1e-6 else float(shapiro(kept.cpu().numpy()).statistic)

    def state(self) -> dict[str, Tensor]:
        """Return the calibration."""
        return self.learned

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the calibration back."""
        self.learned = dict(state)


def discrepancy(first: Tensor, second: Tensor, width: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of two sets of points under a Gaussian kernel, a scalar."""

    def similar(one: Tensor, other: Tensor) -> Tensor:
        return (-(torch.cdist(one, other) / width).square() / 2).exp().mean()

    return similar(first, first) + similar(second, second) - 2 * similar(first, second)
