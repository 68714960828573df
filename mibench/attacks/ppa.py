r"""PPA: plug and play attacks on a generator's styles.

Struppek et al., Plug & Play Attacks: Towards Robust and Flexible Model Inversion Attacks, ICML 2022.
The attacker owns the target's weights and a style-based generator that was trained on public images without the target;
another target needs no other generator. With mapping :math:`f` and synthesis :math:`S`, for a class :math:`y`:

1. of many :math:`w = f(z)`, truncated, the ``candidates`` are kept whose images the target scores highest for
   :math:`y`, on average over image and mirror image;
2. each descends the Poincaré distance of the logits under random crops :math:`A`,
   :math:`\min_w d(T(A(S(w))), y)`, with one style for all layers (:mod:`mibench.optim.identity`);
3. the ``selected`` results with the highest mean :math:`p_y` over many random views are kept: what only one rendering
   fools the target with does not survive.

The authors select 50 of 200 and score all 50. Where the budget has fewer ``samples``, that many of the 50 are returned,
evenly over their ranks, so that the selection is as strict as theirs whatever the number of images that are scored. The
lower budgets have ``selected=null``: the best ``samples`` of their candidates.

Official code: https://github.com/LukasStruppek/Plug-and-Play-Attacks (``attacks/``, ``configs/attacking``); defaults
are those for CelebA, without a schedule. Deviations: no centre crop, since the generator is trained on images framed as
the target's; candidates are judged as they then descend, with one style for all layers; mirroring only where it keeps
the class; no discriminator term, whose weight is 0 there.
"""

from __future__ import annotations

from mibench.attacks.base import AttackCard
from mibench.attacks.families.style_start import SelectedStyles
from mibench.options import Count


class Ppa(SelectedStyles):
    """Search of styles under the Poincaré loss, with selection before and after."""

    card = AttackCard(
        name="ppa",
        title="PPA",
        modalities=("image",),
        revision=2,
        year=2022,
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
        space="style",
    )

    selected: Count | None = 50
    """Results per class that the final selection keeps, of which the budget's samples are returned, evenly over their
    ranks; null keeps the budget's samples."""
