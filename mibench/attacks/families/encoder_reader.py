"""The reader of texts of an encoder: a beam over combinations of candidates, ranked by random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attacks.families.span_reader import SpanReader


@dataclass
class EncoderReader(SpanReader):
    """Reads texts of an encoder, whose vectors depend on the whole text."""

    def exact_texts(self, candidates: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
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

        Texts that are like one of ``same``, those found of this length, are passed over. ``best`` keeps the least value
        of every end.
        """
        width = self.attack.beam
        texts, values = self.drawn(lists, width), torch.zeros(0)
        for _ in range(self.attack.sweeps):
            before = texts
            free = [place for place, tokens in enumerate(lists) if len(tokens) > 1] or [0]
            for turn in torch.randperm(len(free), generator=self.draws).tolist():
                position = free[turn]
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
