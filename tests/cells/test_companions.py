"""Companions: other models of the same people that an attacker may be given."""

import dataclasses

import pytest
import torch

from mibench.errors import UserError


@pytest.fixture
def with_companions(monkeypatch, make_cell):
    """MI-Face replaced by an attack that sends three images through the victim and two through every companion."""

    from mibench.attacks.mi_face import MiFace
    from mibench.tasks.base import Reconstruction

    def reconstruct(self, view, knowledge, goal, networks):
        image = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
        with view.phase("initialise"):
            said = [view.logits(image[[0, 0, 1]])]
        said += [one.logits(image) for one in knowledge.companions(view)]
        (shade,) = torch.autograd.grad(sum(one.square().sum() for one in said), image)
        return Reconstruction(shade[:1].sigmoid().expand(len(goal.labels), -1, -1, -1), goal.labels)

    monkeypatch.setattr(MiFace, "reconstruct", reconstruct)

    def make(*words, uses=("companions",), **options):
        cell = make_cell("attack=mi_face", "target.recipe.epochs=1", "target.recipe.min_steps=0", *words, **options)
        attack = dataclasses.replace(cell.plan.cards.attack, uses=uses)
        cell.plan = dataclasses.replace(cell.plan, cards=dataclasses.replace(cell.plan.cards, attack=attack))
        return cell

    return make


def test_companions_are_other_models_of_the_same_people_on_the_same_account(with_companions, trained_folder):
    folder = trained_folder()
    cell = with_companions("knowledge.companions=[cnn,cnn]", folder=folder)
    assert "companions:cnn+cnn" in cell.knowledge.names()
    same, other = cell.trained_companions(cell.split.private)
    heads = [one.module.head.weight for one in (cell.victim, same, other)]
    assert all(head.shape == heads[0].shape for head in heads)
    assert not any(torch.equal(a, b) for a, b in ((heads[0], heads[1]), (heads[0], heads[2]), (heads[1], heads[2])))
    assert cell.result.ledger["queries"] == {"prepare": 0, "initialise": 3, "optimise": 4, "select": 0}
    assert cell.result.ledger["gradients"]["optimise"] == 4
    spent = with_companions("knowledge.companions=[cnn,cnn]", "query_budget=5", folder=folder)
    assert "budget of 5 queries" in spent.result.stopped


def test_the_controls_companions_see_the_held_out_alone(with_companions, trained_folder, monkeypatch):
    from mibench.settings.base import Scene

    trained, train = [], Scene.train

    def told(scene, population, key, label, cut=None):
        trained.append((label, population.train.digest()))
        return train(scene, population, key, label, cut)

    monkeypatch.setattr(Scene, "train", told)
    folder = trained_folder()
    cell = with_companions("knowledge.companions=[cnn]", folder=folder)
    assert cell.result is not None
    private, held_out = cell.split.private.train.digest(), cell.split.held_out.train.digest()
    assert set(trained) == {("victim", private), ("companion cnn", private)}
    trained.clear()
    assert not torch.equal(cell.control.values, cell.result.reconstruction.values)
    held = {one for one in trained if one != ("undefended target", private)}  # which the judges are measured by
    assert held == {("control victim", held_out), ("companion cnn", held_out)}
    assert with_companions("knowledge.companions=[cnn]", "control=none", folder=folder).control is None


def test_companions_are_part_of_what_an_attack_is_that_takes_them_and_of_no_other(with_companions, trained_folder):
    folder = trained_folder()

    def values(*companions, **options):
        cell = with_companions(f"knowledge.companions=[{','.join(companions)}]", folder=folder, **options)
        return cell.plan.cell_id, cell.result.reconstruction.values

    alone, one, two = (values(*["cnn"] * count) for count in (0, 1, 2))
    assert len({alone[0], one[0], two[0]}) == 3
    assert not torch.equal(alone[1], one[1]) and not torch.equal(one[1], two[1])
    assert torch.equal(values("cnn")[1], one[1])
    plain = [with_companions(f"knowledge.companions=[{name}]", uses=()) for name in ("cnn", "lenet")]
    assert plain[0].plan.cell_id == plain[1].plan.cell_id and not plain[0].companions
    assert "companions" not in plain[0].plan.description["knowledge"]


def test_a_cell_whose_companions_are_not_stored_is_planned_again(with_companions):
    from mibench.cli.stored import replan

    cell = with_companions(uses=())
    assert replan(cell.plan.description, ["device=cpu"]).cell_id == cell.plan.cell_id


def test_evaluation_models_share_no_architecture_with_a_companion(with_companions):
    assert [card.name for card in with_companions().judges] == ["residual", "mlp"]
    assert [card.name for card in with_companions("knowledge.companions=[mlp]").judges] == ["residual"]
    assert [card.name for card in with_companions("knowledge.companions=[mlp]", uses=()).judges] == ["residual", "mlp"]
    words = ["knowledge.companions=[vgg16_64]", "evaluation.models=[vgg16,mlp]"]
    assert [card.name for card in with_companions(*words).judges] == ["mlp"]
    cell = with_companions("knowledge.companions=[residual,mlp]")
    with pytest.raises(UserError, match=r"evaluation\.models.*knowledge\.companions"):
        _ = cell.judges
    with pytest.raises(UserError, match="lenett"):
        with_companions("knowledge.companions=[lenett]", uses=())
