"""What attackers own holds nothing private; what attacks read of it, tests/attacks/test_contract.py looks at."""

import dataclasses

import pytest
import torch

from mibench.data import Examples
from mibench.datasets.digits import Digits
from mibench.errors import UserError


def test_priors_are_trained_on_public_images_alone(make_cell, tmp_path, monkeypatch):
    """The prior's training receives exactly the public images: none of them is a private one."""
    from mibench.priors.wgan_gp import WganGp

    seen = []
    monkeypatch.setattr(WganGp, "train", lambda self, network, data, seed, device: seen.append(data.public.x.clone()))
    cell = make_cell("attack=random_prior", folder=tmp_path)
    assert cell.knowledge.prior is not None
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
