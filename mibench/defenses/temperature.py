r"""Temperature of the softmax (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

The service answers

.. math:: p'_i = \frac{p_i^{1/T}}{\sum_j p_j^{1/T}} = \mathrm{softmax}(\ell / T)_i

for the logits :math:`\ell` behind the probabilities :math:`p`. :math:`T > 1` flattens the answer, :math:`T < 1`
sharpens it, :math:`T = 1` leaves it as it is. The label stays: where single precision makes another class level with
it, it gets the next number. It acts on probabilities, so a class whose probability has underflowed to 0 stays at 0.

This hides nothing from an attacker who knows or fits :math:`T`: :math:`T \log p'` are the logits again, up to a
constant. That is the adaptive attack, and an inversion network trained on the log of the answers is one without being
told. Information is lost only where single precision ends: a small :math:`T` sends the other classes to exact zeros
(:math:`T \to 0` is the label alone), and rounding after it (``defense=stack defense.parts=[temperature,rounding]``)
loses what it pushes together.

The paper calibrates; as a defense it is a standard measure, without official code.
"""

from __future__ import annotations

from torch import Tensor

from mibench.defenses.base import Defense, DefenseCard
from mibench.nn.scores import label_kept
from mibench.options import Positive


class Temperature(Defense):
    """Probabilities at another temperature."""

    card = DefenseCard(
        name="temperature",
        title="Temperature scaling",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2017,
        fidelity="paper",
        hooks=("output",),
        affects=("scores", "explanations"),
        strength="temperature",
        stronger="higher",
        levels=(2.0, 5.0, 10.0),
        adaptive=("attack=inversion_network",),
    )

    temperature: Positive = 5.0
    """What the logits are divided by; 1 leaves the answer as it is."""

    def output(self, probabilities: Tensor) -> Tensor:
        """Return the probabilities ``(N, classes)`` at the temperature, with the most probable class unchanged."""
        if self.temperature == 1:
            return probabilities
        scaled = (probabilities.log() / self.temperature).softmax(1)
        return label_kept(scaled, probabilities.argmax(1, keepdim=True))
