r"""TL-DMI: transfer learning as a defense (Ho et al., Model Inversion Robustness, CVPR 2024).

The first layers learn from public data and never see a private example; the others and the head are tuned on the
private ones,

.. math:: \min_{\theta_S} \mathrm{CE}(f_{\theta_C, \theta_S}(x), y), \qquad \theta_C \text{ frozen as the public data
    left them.}

The paper's Fisher information says why: inversion leans on the early layers, classification on the late ones.

The public data are the split's, with the labels they have; their head is of their own and thrown away. They are the
very data that the attacker may own: what the frozen layers know, he may know. Frozen are the first layers in the order
in which the model holds them, the running statistics of their batch norms too; weights that are frozen are not given to
the optimiser, so that no weight decay moves them. Both trainings follow the target's recipe. The baseline ``frozen=0``
begins with the public data alike and tunes all layers.

What it does not protect from: the late layers, which tell the classes apart, learn from private data as ever, and an
attack that needs only them (a low-dimensional prior, few classes) loses little. It hides nothing, so that no attacker
has to know of it. In setting ``federated`` there is no training it could take part in; such cells are refused.

Official code: https://github.com/hosytuyen/TL-DMI (read for facts, written anew: it has no licence). Deviations: the
authors begin with ImageNet's weights (VGG16, frozen up to module 26 of 44, which is the default's share) or
MS-Celeb's, where here the split's public data are all there is; learning rates are the recipe's.
"""

from __future__ import annotations

from dataclasses import field

from torch import Tensor, nn

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard, Examples, Training
from mibench.errors import UserError
from mibench.nn.pretraining import learn_public, with_known_classes
from mibench.options import Decay


class TlDmi(Defense):
    """Fine-tuning of the late layers of a model pre-trained on public data."""

    card = DefenseCard(
        name="tl_dmi",
        title="TL-DMI",
        modalities=("image",),
        year=2024,
        code="https://github.com/hosytuyen/TL-DMI",
        fidelity="official",
        hooks=("training",),
        affects=("white_box", "scores", "labels", "explanations", "features"),
        strength="frozen",
        stronger="higher",
        levels=(0.3, 0.6, 0.9),
        baselines=(("frozen", 0.0),),
    )
    learns_from_public = True

    frozen: Decay = 0.6
    """Share of the layers below the head that stay as the public data left them; 0 tunes all."""
    _trainable: float = field(init=False, default=1.0)

    def fit(self, training: Training) -> Classifier:
        """Train the target on the public data, then its late layers on the private ones.

        Raises:
            UserError: If there are no public data with labels, or the target's head is no linear layer.
        """
        model = training.model
        learn_public(training, labelled(training.public), self.card.name)
        still = first_layers(model, self.frozen)
        parameters = [parameter for layer in still for parameter in layer.parameters(recurse=False)]
        for parameter in parameters:
            parameter.requires_grad_(False)
        self._trainable = 1 - sum(p.numel() for p in parameters) / sum(p.numel() for p in model.parameters())

        def loss(batch: Batch) -> Tensor:
            for layer in still:  # the loop has put the whole model into training mode
                layer.eval()
            return self.loss(batch)

        trained = training.run(loss)
        for parameter in parameters:
            parameter.requires_grad_(True)
        return trained

    def facts(self) -> dict[str, float | str]:
        """Return the share of the weights that private data have moved."""
        return {"trainable_share": self._trainable}


def labelled(public: Examples | None) -> Examples:
    """Return public data with their class ids counted from 0.

    Raises:
        UserError: If there are none, or they are not of several known classes.
    """
    known = with_known_classes(public)
    if known is None:
        raise UserError(
            "defense=tl_dmi pre-trains on public data of several known classes, which this dataset does not have; set "
            "dataset.public_classes or leave dataset.public_root out, or choose another defense."
        )
    return known


def first_layers(model: Classifier, share: float) -> list[nn.Module]:
    """Return the first ``share`` of the modules below the head that hold tensors themselves, in the model's order."""
    holding = [
        module
        for module in model.stages.modules()
        if module is not model.head and (module._parameters or any(True for _ in module.buffers(recurse=False)))
    ]
    return holding[: round(share * len(holding))]
