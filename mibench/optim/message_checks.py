"""What is odd about messages: zero in every entry, or of the opposite sign."""

from __future__ import annotations

from mibench.access import GradientsView
from mibench.errors import UserError
from mibench.optim.label_recovery import of_head


def silent_messages(view: GradientsView) -> list[int]:
    """Return the positions of messages that are zero in every entry, so that they say nothing of the inputs."""
    return [number for number, one in enumerate(view.messages) if not any(bool(value.any()) for value in one.values())]


def looks_reversed(view: GradientsView) -> bool:
    """Return whether all messages look as if their sign were the opposite one.

    Of :math:`n` examples with hard labels the cross-entropy's gradient by the bias of the last layer,
    :math:`p_c - 1[c = y]` in the mean, is positive for every class that is not there: at most :math:`n` entries are
    negative. A message is reversed where more are, and turned around no more than :math:`n` would be. Where there are
    too few classes to tell, or the last layer has no bias, nothing is said.
    """
    reversed_ones = []
    for message in view.messages:
        try:
            bias = of_head(message, "head.bias", "")
        except UserError:
            return False
        negative, positive = int((bias < 0).sum()), int((bias > 0).sum())
        reversed_ones.append(negative > view.batch_size >= positive)
    return bool(reversed_ones) and all(reversed_ones)
