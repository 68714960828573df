"""What attackers own holds nothing private; what attacks read of it, tests/attacks/test_contract.py looks at."""

import dataclasses

import hydra
import pytest
import torch
from exact import Ended

from mibench.data import Examples
from mibench.datasets.digits import Digits
from mibench.errors import UserError
from mibench.planning.catalogue import entries
from mibench.planning.composition import compose

#: Every prior that is trained, with an attack that uses it.
TRAINED = {
    "flow": "vmi",
    "inpainting_gan": "gmi_masked",
    "inversion_gan": "kedmi",
    "projection_cgan": "plgmi",
    "style_gan": "ppa",
    "wgan_gp": "random_prior",
}


def test_every_prior_that_is_trained_is_looked_at():
    cards = {entry.name for entry in entries("prior")} - {"none", "stylegan2_ada"}
    assert set(TRAINED) == cards


@pytest.mark.parametrize("prior", TRAINED)
def test_priors_are_trained_on_public_images_alone(prior, make_cell, tmp_path, monkeypatch):
    """A prior's training receives exactly the public images: none of them is a private one."""
    seen, node = [], compose([f"attack={TRAINED[prior]}", f"prior={prior}"])["prior"]
    kind = hydra.utils.get_class(node["_target_"])

    def train(self, network, data, seed, device):
        seen.append(data.public.x.clone())
        raise Ended

    monkeypatch.setattr(kind, "train", train)
    tiny = ["dataset.size=8", "target.recipe.epochs=1", "target.recipe.min_steps=0"]
    cell = make_cell(f"attack={TRAINED[prior]}", f"prior={prior}", *tiny, folder=tmp_path)
    with pytest.raises(Ended):
        cell.run()
    private = {row.numpy().tobytes() for row in cell.split.private.train.x}
    assert torch.equal(seen[0], cell.split.public.x)
    assert not private & {row.numpy().tobytes() for row in seen[0]}


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_whose_public_images_hold_a_private_one_is_refused(part, make_cell, tmp_path, monkeypatch):
    """A loader that gives one private image away is caught before a prior or an attack sees it."""
    honest = Digits.load

    def leaky(self):
        split = honest(self)
        x = split.public.x.clone()
        x[7] = getattr(split.private, part).x[3]
        return dataclasses.replace(split, public=Examples(x, split.public.y))

    assert make_cell("attack=random_prior", folder=tmp_path).split.public is not None
    monkeypatch.setattr(Digits, "load", leaky)
    with pytest.raises(UserError, match=r"1 of the \d+ public inputs \(the first is number 7\) are private ones too"):
        make_cell("attack=random_prior", folder=tmp_path).split  # noqa: B018
