import dataclasses

import pytest
import torch
from torch import nn

from mibench.access import ENCODERS, FeaturesView, Ledger, Server
from mibench.card import DefenseCard
from mibench.defenses.base import Defense
from mibench.errors import BudgetExhausted, IncompatibleCellError, NotGrantedError, UserError
from mibench.settings.base import Scene
from mibench.settings.central import Central
from mibench.settings.split import SplitLearning
from mibench.settings.victim import Blueprint
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.training import Recipe, is_correct


class Hook(Defense):
    """A features hook: ``jitter`` adds noise, ``mute`` sends zeros."""

    card = DefenseCard(name="hook", title="", modalities=("image",), hooks=("features",), affects=("features",))

    def __init__(self, kind):
        self.kind = kind

    def features(self, features):
        return features + torch.randn_like(features) if self.kind == "jitter" else torch.zeros_like(features)


@pytest.fixture
def make_scene(digits8, workshop):
    def make(defense=None, target=Mlp, epochs=5, pretrained=False, key=None):
        blueprint = Blueprint(
            target.__name__, lambda spec: target(spec=spec), Recipe(epochs=epochs, lr=5e-3), {"epochs": epochs},
            pretrained,
        )  # fmt: skip
        defense = defense or Defense()
        return Scene(
            split=digits8, blueprint=blueprint, defense=defense, defense_key=key or {}, workshop=workshop, seed=0
        )

    return make


def observe(setting, scene, count=3, ledger=None):
    victim = setting.train(scene, scene.split.private, "victim")
    seen = setting.observe(scene, victim, scene.split.private, "features", count, ledger or Ledger())
    return victim, seen.view, seen.secret


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_clients_send_what_the_stage_at_the_cut_makes_of_their_own_inputs(make_scene, cut):
    victim, view, secret = observe(SplitLearning(cut=cut, batch_size=2), make_scene(target=Cnn, epochs=1))
    assert isinstance(view, FeaturesView)
    assert len(secret) == 6 and len(secret.x.flatten(1).unique(dim=0)) == 6
    torch.testing.assert_close(view.features, victim.module.blocks(secret.x)[cut].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(victim.module.server(view.features), victim.module(secret.x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(view.encoder(secret.x), view.features, rtol=1e-4, atol=1e-5)
    assert not view.features.requires_grad
    more = observe(SplitLearning(cut=cut, batch_size=2), make_scene(target=Cnn, epochs=1), count=4)[1]
    assert torch.equal(more.features[:6], view.features)  # a client does not send otherwise where others send too


def test_answers_pass_the_features_hook(make_scene, digits8):
    """A hook that wipes the features leaves chance; one that adds noise costs accuracy and can be repeated."""
    test = digits8.private.test
    right = {}
    for kind in (None, "jitter", "mute"):
        victim, _, _ = observe(SplitLearning(), make_scene(Hook(kind) if kind else None))
        right[kind] = float(is_correct(victim.predict_proba, test).float().mean())
        assert torch.equal(victim.predict_proba(test.x), victim.predict_proba(test.x))
        whole = float(is_correct(victim.module.predict_proba, test).float().mean())
        assert whole > 0.9  # the network itself is the same in all three
    assert right[None] > 0.9 and right["mute"] < 0.3
    assert right["mute"] < right["jitter"] < right[None]


def test_a_random_hook_draws_anew_for_every_send_and_query(make_scene, digits8):
    victim, view, secret = observe(SplitLearning(sends=200), make_scene(Hook("jitter")))
    clean = victim.module.client(secret.x).detach()
    assert len(view.observed) == 200 and not torch.equal(view.observed[0], view.observed[1])
    assert 0.9 < float((view.observed[0] - clean).std()) < 1.1
    assert float((view.features - clean).std()) < 0.15  # the mean of what was sent: 1 / sqrt(200)
    assert torch.equal(observe(SplitLearning(sends=200), make_scene(Hook("jitter")))[1].observed, view.observed)
    x = digits8.public.x[:5]
    assert not torch.equal(view.query(x), view.query(x))
    assert view.ledger.queries == 10


@pytest.mark.parametrize("known", ENCODERS)
def test_the_view_gives_of_the_encoder_what_is_granted_and_what_is_weaker(make_scene, digits8, known):
    view = observe(SplitLearning(), make_scene(epochs=0))[1].narrow(known)
    asked = {
        "architecture": lambda: view.untrained(0),
        "query": lambda: view.query(digits8.public.x[:2]),
        "weights": lambda: view.encoder(digits8.public.x[:2]),
    }
    for level, ask in asked.items():
        if ENCODERS.index(level) <= ENCODERS.index(known):
            assert ask() is not None
        else:
            with pytest.raises(NotGrantedError, match=rf"knowledge\.encoder={level} \(now: {known}\)"):
                ask()
    assert view.narrow("weights").held == known  # and never widens
    if known != "weights":
        fields = [getattr(view, field.name) for field in dataclasses.fields(view)]
        assert not any(isinstance(field, nn.Module) for field in fields)


def test_what_is_sent_through_the_clients_part_is_counted(make_scene, digits8):
    _, view, _ = observe(SplitLearning(), make_scene(epochs=0), ledger=Ledger(budget=9))
    x = digits8.public.x[:4].clone()
    assert view.ledger.queries == 0
    view.query(x)
    view.encoder(x.requires_grad_(True))
    assert (view.ledger.queries, view.ledger.gradient_evals) == (8, 4)
    for ask in (view.query, view.encoder):
        with pytest.raises(BudgetExhausted):
            ask(x)


def test_the_architecture_comes_with_weights_that_the_victim_never_had(make_scene):
    victim, view, _ = observe(SplitLearning(cut=1), make_scene(epochs=0))  # of the first draw itself
    copy, again, other = view.untrained(0), view.untrained(0), view.untrained(1)
    for name, value in victim.module.client.named_parameters():
        fresh = dict(copy.named_parameters())[name]
        assert fresh.shape == value.shape and not torch.equal(fresh, value)
        assert torch.equal(fresh, dict(again.named_parameters())[name])
        assert not torch.equal(fresh, dict(other.named_parameters())[name])
    assert view.ledger.queries == 0
    with pytest.raises(IncompatibleCellError, match="weights of its own"):
        observe(SplitLearning(), make_scene(pretrained=True))[1].untrained(0)


def test_an_undefended_victim_is_the_central_one_and_a_defended_one_is_of_its_cut(make_scene):
    def key(setting, **options):
        scene = make_scene(epochs=0, **options)
        return setting.train(scene, scene.split.private, "victim").key

    assert key(SplitLearning(cut=1)) == key(SplitLearning()) == key(Central())
    defended = [key(setting, key={"some": 1}) for setting in (SplitLearning(cut=1), SplitLearning(), Central())]
    assert len({str(one) for one in defended}) == 3


class Whole(Mlp):
    """A network that runs as one piece, whatever its stages say."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_cut_that_the_target_has_not_is_refused(make_scene):
    scene = make_scene(epochs=0)
    with pytest.raises(UserError, match=r"cut after stage 2, it has stages 0 to 1; set setting\.cut"):
        SplitLearning(cut=2).train(scene, scene.split.private, "victim")
    scene = make_scene(epochs=0, target=Whole)
    with pytest.raises(UserError, match="cannot be cut after stage 0"):
        SplitLearning().train(scene, scene.split.private, "victim")
    with pytest.raises(UserError, match=r"lower setting\.batch_size"):
        observe(SplitLearning(batch_size=1000), make_scene(epochs=0))
    setting, scene = SplitLearning(), make_scene(epochs=0)
    victim = setting.train(scene, scene.split.private, "victim")
    with pytest.raises(UserError, match="does not offer access 'scores'"):
        setting.observe(scene, victim, scene.split.private, "scores", 1, Ledger())


def test_a_row_says_what_of_the_encoder_the_attack_had(make_cell, digits8):
    tiny = ["dataset.size=8", "target.recipe.epochs=0", "attack.aux_size=4", "attack.epochs=1"]
    cell = make_cell("attack=split_decoder", *tiny)
    assert "encoder:query" in cell.knowledge.names() and cell.config["knowledge"]["encoder"] == "weights"
    assert cell.observation.view.held == "query"
    refused = make_cell("attack=split_decoder", "knowledge.encoder=architecture", *tiny)
    assert refused.plan.cell_id != cell.plan.cell_id
    with pytest.raises(NotGrantedError, match=r"knowledge\.encoder=query"):
        refused.result  # noqa: B018
    plain = [make_cell("attack=gmi", f"knowledge.encoder={known}").plan.cell_id for known in ("weights", "none")]
    assert plain[0] == plain[1]


def test_the_control_is_what_was_made_of_the_next_client(make_cell):
    tiny = ["dataset.size=8", "target.recipe.epochs=0", "attack.aux_size=4", "attack.epochs=1", "setting.batch_size=2"]
    cell = make_cell("attack=split_decoder", *tiny)
    assert len(cell.result.reconstruction) == 4
    assert torch.equal(cell.control.values, cell.result.reconstruction.values.roll(-2, 0))


class Turning(Server):
    """Returns the opposite of the honest gradient, and keeps the shapes of what it saw."""

    def __init__(self, factor):
        self.factor, self.seen = factor, set()

    def returns(self, features, y, gradient):
        self.seen.add((features.shape == gradient.shape, len(y) == len(features), features.requires_grad))
        return self.factor * gradient


def test_a_planted_server_trains_the_clients_part_and_an_honest_one_changes_nothing(make_scene):
    plain = make_scene()

    def trained(factor, key):
        scene = dataclasses.replace(plain, server=Turning(factor), server_key={"attack": key})
        return scene.server, SplitLearning().train(scene, scene.split.private, "victim")

    ordinary = SplitLearning().train(plain, plain.split.private, "victim")
    server, honest = trained(1.0, "honest")
    _, turned = trained(-1.0, "turned")
    assert honest.key["server"] == {"attack": "honest"} and server.seen == {(True, True, False)}
    for name, value in ordinary.module.state_dict().items():
        torch.testing.assert_close(honest.module.state_dict()[name], value)
    first = "stages.0.0.weight"
    moved = [one.module.state_dict()[first] - ordinary.module.state_dict()[first] for one in (honest, turned)]
    assert float(moved[0].abs().max()) == 0 < float(moved[1].abs().max())
    again = trained(-1.0, "turned")[1]
    assert torch.equal(again.module.state_dict()[first], turned.module.state_dict()[first])
