import copy
import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mibench.access import GradientsView, Ledger, Message, Sealed, Server, WhiteBoxView
from mibench.card import AttackCard, DefenseCard, TargetCard
from mibench.defenses.base import Defense
from mibench.defenses.bido import Bido
from mibench.defenses.gradient_clipping import GradientClipping
from mibench.defenses.neg_ls import NegLs
from mibench.defenses.none import NoDefense
from mibench.defenses.precode import Precode
from mibench.errors import NotGrantedError, UserError
from mibench.settings.clients import Clients
from mibench.settings.federated import Federated
from mibench.storage.store import Store
from mibench.targets.base import Target
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.base import Budget, Case, Reconstruction
from mibench.tasks.instance import InstanceGoal, InstanceTask


class Counting(Defense):
    """Shares the gradient plus how often its client shared before: error feedback at its simplest."""

    card = DefenseCard(
        name="counting", title="Counting", modalities=("image",), hooks=("update",), affects=("gradients",)
    )

    def update(self, gradient, client):
        before = client.state.get("count", torch.zeros(()))
        client.state["count"] = before + 1
        return {name: torch.full_like(value, float(before)) for name, value in gradient.items()}


class Reversing(Defense):
    """Delivers the updates in reverse order."""

    card = DefenseCard(
        name="reversing", title="Reversing", modalities=("image",), hooks=("protocol",), affects=("gradients",)
    )

    def protocol(self, updates, this):
        assert (this.clients, this.number, this.dropped) == (3, 0, frozenset())
        return [Message(update) for update in updates[::-1]]


class Sealing(Defense):
    """Seals every message for those who take part."""

    card = DefenseCard(name="sealing", title="", modalities=("image",), hooks=("protocol",), affects=("gradients",))

    def protocol(self, updates, this):
        return [Message(Sealed(update)) for update in updates]


class Shifting(Server):
    """Sends a model whose head is moved, and keeps what it hears."""

    def __init__(self):
        self.heard = []

    def broadcast(self, number, model):
        model = copy.deepcopy(model)
        with torch.no_grad():
            model.head.bias.add_(1.0)
        return model

    def receive(self, number, messages):
        self.heard.append((number, len(messages)))


def observe(setting, scene, count=3):
    population = scene.split.private
    victim = setting.train(scene, population, "victim")
    return victim, setting.observe(scene, victim, population, "gradients", count, Ledger())


class Normed(Target):
    """A small network with batch norm."""

    card = TargetCard(name="normed", title="Normed", modalities=("image",))

    def __init__(self, *, spec):
        super().__init__(spec=spec)
        self.normalise = nn.Identity()
        layers = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten())
        self.stages = nn.ModuleList([nn.Sequential(*layers)])
        self.head = nn.Linear(64, spec.classes)


def by_hand(model, x, y):
    parameters = dict(model.named_parameters())
    values = torch.autograd.grad(cross_entropy(model(x), y), list(parameters.values()))
    return dict(zip(parameters, values, strict=True))


def test_each_message_of_round_0_is_the_gradient_of_its_own_batch(make_scene):
    victim, observation = observe(Federated(batch_size=4), make_scene())
    view, secret = observation.view, observation.secret
    assert isinstance(view, GradientsView)
    assert len(view.messages) == 3 and len(secret) == 12
    for message, x, y in zip(view.messages, secret.x.split(4), secret.y.split(4), strict=True):
        expected = by_hand(victim.module, x, y)
        assert message.keys() == expected.keys()
        for name, value in message.items():
            torch.testing.assert_close(value, expected[name])
        for name, value in view.gradient(x, y).items():  # and what the view offers the attacker is the same function
            torch.testing.assert_close(value, expected[name])
    other = by_hand(victim.module, secret.x[4:8], secret.y[4:8])
    assert not torch.allclose(view.messages[0]["head.weight"], other["head.weight"])


@pytest.mark.parametrize("defense", [NegLs(alpha=-0.2, warmup=0.0, full=0.0), Bido(a1=0.5)])
def test_who_knows_the_defenses_loss_computes_the_clients_gradient_and_nobody_else_does(make_scene, defense):
    _, observation = observe(Federated(batch_size=4), make_scene(defense=defense))
    knowing, secret = observation.view, observation.secret
    unknowing = dataclasses.replace(knowing, client_loss=None)
    x, y = secret.x.unflatten(0, (3, 4)), secret.y.unflatten(0, (3, 4))
    for view, knows in ((knowing, True), (unknowing, False)):
        together = view.gradients(x, y)
        for row, message in enumerate(view.messages):
            alone = view.gradient(x[row], y[row])
            off = [float((alone[name].detach() - value).norm() / value.norm()) for name, value in message.items()]
            assert max(off) < 1e-3 if knows else max(off) > 0.1
            for name, value in alone.items():
                torch.testing.assert_close(together[name][row], value, rtol=1e-3, atol=1e-5)


def test_what_a_clients_loss_draws_is_drawn_anew_in_every_gradient_of_the_attacker(make_scene):
    _, observation = observe(Federated(batch_size=4), make_scene(defense=Precode(beta=1e-3)))
    view, x, y = observation.view, observation.secret.x[:4], observation.secret.y[:4]
    first, second = (view.gradient(x, y)["head.weight"] for _ in range(2))
    assert not torch.allclose(first, second)
    message = view.messages[0]["head.weight"]
    mean = torch.stack([view.gradient(x, y)["head.weight"] for _ in range(100)]).mean(0)
    assert (mean - message).norm() < (first - message).norm()


def test_the_control_scores_the_next_clients_reconstruction_on_this_clients_truth(make_scene):
    _, observation = observe(Federated(batch_size=2), make_scene())
    goal = InstanceGoal(3, 2)
    budget = Budget(name="smoke", targets=3, samples=1, records=1)
    case = Case(
        split=make_scene().split, budget=budget, seed=0, batch_size=2, secret=observation.secret,
        utility={"correct": torch.ones(1), "chance": 0.2},
    )  # fmt: skip
    task = InstanceTask()
    truth = task.truth(case, goal)
    perfect = Reconstruction(truth.x.clone(), goal.target, truth.y.clone())
    control = task.control(case, goal, None, perfect)
    torch.testing.assert_close(control.values, torch.cat([truth.x[2:], truth.x[:2]]))
    assert torch.equal(control.labels, torch.cat([truth.y[2:], truth.y[:2]]))
    assert torch.equal(control.target, goal.target)


def test_clients_own_disjoint_data_and_draw_a_new_batch_every_round(make_scene):
    secrets = [
        observe(Federated(rounds=rounds, clients=4, batch_size=8), make_scene(), 4)[1].secret for rounds in (0, 1)
    ]
    images = secrets[0].x.flatten(1)
    assert len(images.unique(dim=0)) == 32
    assert not torch.equal(images, secrets[1].x.flatten(1))


def test_unique_labels_holds_within_every_batch(make_scene):
    _, observation = observe(Federated(batch_size=4, unique_labels=True), make_scene(), 8)
    assert all(len(labels.unique()) == 4 for labels in observation.secret.y.split(4))


@pytest.mark.parametrize("rounds", [0, 3])
def test_the_update_defense_is_in_its_state_of_the_attacked_round(make_scene, rounds):
    setting = Federated(rounds=rounds, clients=2)
    for _ in range(2):  # the second victim comes from the store, and an observation does not change its state
        _, observation = observe(setting, make_scene(defense=Counting()), 2)
        assert all(float(value.max()) == rounds for message in observation.view.messages for value in message.values())


def test_the_server_sees_what_the_protocol_delivers(make_scene):
    _, plain = observe(Federated(clients=3), make_scene())
    _, turned = observe(Federated(clients=3), make_scene(defense=Reversing()))
    for one, other in zip(plain.view.messages, turned.view.messages[::-1], strict=True):
        torch.testing.assert_close(one["head.bias"], other["head.bias"])


def test_the_global_model_learns_with_the_rounds(make_scene):
    def accuracy(rounds):
        victim, _ = observe(Federated(rounds=rounds, clients=4, batch_size=16, lr=0.2), make_scene(Mlp))
        test = make_scene().split.private.test
        return float((victim.predict_proba(test.x).argmax(1) == test.y).float().mean())

    assert accuracy(0) < 0.5
    assert accuracy(60) > 0.8


def test_the_attacked_model_is_the_one_behind_the_messages(make_scene):
    _, observation = observe(Federated(rounds=5, clients=4, batch_size=2), make_scene(Mlp))
    view, secret = observation.view, observation.secret
    expected = by_hand(view.model, secret.x[:2], secret.y[:2])
    torch.testing.assert_close(view.messages[0]["head.bias"], expected["head.bias"])


def test_several_local_steps_are_the_sgd_they_say_and_the_attacker_can_repeat_them(make_scene):
    setting = Federated(batch_size=6, local_epochs=2, local_batch_size=4, local_lr=0.05, reshuffle=False)
    victim, observation = observe(setting, make_scene(), 2)
    view, secret = observation.view, observation.secret
    assert view.deltas and view.local.steps(6) == 4
    model = copy.deepcopy(victim.module)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for rows in (slice(0, 4), slice(4, 6)) * 2:
        optimizer.zero_grad()
        cross_entropy(model(secret.x[rows]), secret.y[rows]).backward()
        optimizer.step()
    after = dict(model.named_parameters())
    updates = view.updates(secret.x.reshape(2, 6, *secret.x.shape[1:]), secret.y.reshape(2, 6))
    for name, before in victim.module.named_parameters():
        torch.testing.assert_close(view.messages[0][name], before - after[name], atol=1e-6, rtol=1e-4)
        for message, update in zip(view.messages, updates[name], strict=True):
            torch.testing.assert_close(update, message[name], atol=1e-6, rtol=1e-4)
    x = secret.x[None, :6].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(view.updates(x, secret.y[None, :6])["head.weight"].square().sum(), x)
    assert float(gradient.abs().min(0).values.max()) > 0


def test_a_difference_of_parameters_becomes_a_gradient_by_steps_and_step_size(make_scene):
    def apart(local_lr):
        setting = Federated(batch_size=4, local_epochs=2, local_batch_size=2, local_lr=local_lr)
        victim, observation = observe(setting, make_scene(), 1)
        expected = by_hand(victim.module, observation.secret.x, observation.secret.y)
        found = observation.view.as_gradients()[0]
        return max(float((found[name] - expected[name]).abs().max()) for name in expected)

    assert apart(1e-4) < 1e-2 < apart(0.5)
    _, observation = observe(Federated(batch_size=4, local_epochs=2), make_scene(), 1)
    blind = dataclasses.replace(observation.view, local=None)
    assert torch.equal(blind.as_gradients()[0]["head.bias"], blind.messages[0]["head.bias"])
    with pytest.raises(NotGrantedError, match=r"knowledge\.local_training=true"):
        blind.updates(observation.secret.x[None], observation.secret.y[None])


def test_a_message_may_be_the_true_mean_over_several_clients(make_scene):
    setting = Federated(batch_size=2, clients_per_message=3, clients=6)
    victim, observation = observe(setting, make_scene(), 2)
    view, secret = observation.view, observation.secret
    assert (
        view.batch_size == setting.inputs_behind(None, NoDefense.card) == 6
        and view.senders == 3
        and len(view.messages) == 2
        and len(secret) == 12
    )
    expected = by_hand(victim.module, secret.x[6:], secret.y[6:])
    for name, value in view.messages[1].items():
        torch.testing.assert_close(value, expected[name])


def test_several_steps_of_several_clients_are_repeated_client_by_client(make_scene):
    setting = Federated(
        batch_size=4, clients_per_message=2, clients=4, local_epochs=2, local_batch_size=2, reshuffle=False
    )
    _, observation = observe(setting, make_scene(), 2)
    view, secret = observation.view, observation.secret
    updates = view.updates(secret.x.reshape(2, 8, *secret.x.shape[1:]), secret.y.reshape(2, 8))
    for name, value in updates.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in view.messages]), atol=1e-6, rtol=1e-4)
    found, sent = view.as_gradients()[0]["head.bias"], view.messages[0]["head.bias"]
    torch.testing.assert_close(found, sent / (4 * setting.local.lr))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_runs_as_the_setting_says_for_client_and_attacker_alike(make_scene, mode):
    victim, observation = observe(Federated(batch_size=4, batch_norm=mode), make_scene(Normed), 1)
    view, secret = observation.view, observation.secret
    expected = by_hand(copy.deepcopy(victim.module).train(mode == "train"), secret.x, secret.y)
    other = by_hand(copy.deepcopy(victim.module).train(mode == "eval"), secret.x, secret.y)
    several = view.gradients(torch.stack([secret.x, secret.x.flip(-1)]), torch.stack([secret.y] * 2))
    for name, value in view.gradient(secret.x, secret.y).items():
        torch.testing.assert_close(view.messages[0][name], expected[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(several[name][0], expected[name], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(view.messages[0]["head.weight"], other["head.weight"], rtol=1e-2)
    assert view.buffers == [{}]


def test_shared_buffers_say_what_the_batch_statistics_were(make_scene):
    setting = Federated(batch_size=4, share_buffers=True)
    victim, observation = observe(setting, make_scene(Normed), 1)
    sent = observation.view.buffers[0]
    assert sent.keys() == {"stages.0.1.running_mean", "stages.0.1.running_var"}
    batch = victim.module.stages[0][0](victim.module.normalise(observation.secret.x))
    torch.testing.assert_close(sent["stages.0.1.running_mean"], 0.1 * batch.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert not any("running" in name for name in observation.view.messages[0])
    later, _ = observe(Federated(batch_size=4, share_buffers=True, rounds=3), make_scene(Normed), 1)
    alone, _ = observe(Federated(batch_size=4, rounds=3), make_scene(Normed), 1)
    assert float(later.module.stages[0][1].running_mean.abs().sum()) > 0
    assert float(alone.module.stages[0][1].running_mean.abs().sum()) == 0


def test_pooled_training_stands_before_the_first_round(make_scene):
    scene = make_scene(Mlp)
    test = scene.split.private.test

    def accuracy(**options):
        victim = Federated(**options).train(scene, scene.split.private, "victim")
        return float((victim.predict_proba(test.x).argmax(1) == test.y).float().mean())

    assert accuracy(pooled_epochs=0) < 0.5
    assert accuracy(pooled_epochs=3) > 0.7
    assert accuracy(pooled_epochs=None) > 0.85


def test_what_does_not_change_the_model_does_not_train_another(make_scene):
    scene = make_scene()
    keys = [
        Federated(**options).train(scene, scene.split.private, "victim").key
        for options in ({}, {"batch_size": 4, "batch_norm": "eval", "clients_per_message": 2}, {"rounds": 1})
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_transcript_lets_the_eavesdropper_rebuild_the_model(make_scene):
    _, observation = observe(Federated(rounds=3, clients=2, batch_size=2), make_scene(Mlp), 2)
    transcript = observation.view.transcript()
    assert len(transcript.rounds) == 3 and all(len(sent) == 2 for sent in transcript.rounds)
    for name, parameter in transcript.start.named_parameters():
        walked = sum((sent[0][name] + sent[1][name]) / 2 for sent in transcript.rounds)
        torch.testing.assert_close(observation.view.parameters[name], parameter - transcript.lr * walked)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_broadcast_model_normalises_as_clients_do(make_scene, mode):
    _, observation = observe(Federated(batch_size=4, batch_norm=mode), make_scene(Normed), 1)
    start, x = observation.view.transcript().start, observation.secret.x
    torch.testing.assert_close(start(x), observation.view.model(x))
    assert torch.allclose(start(x)[:1], start(x[:1])) == (mode == "eval")


def test_what_a_client_draws_at_random_is_the_same_again(make_scene):
    class Noisy(Defense):
        card = DefenseCard(name="noisy", title="Noisy", modalities=("image",), hooks=("training",), affects=())

        def loss(self, batch):
            return super().loss(batch) * (1 + torch.rand(()))

    first, second = (observe(Federated(), make_scene(defense=Noisy()))[1].view.messages for _ in range(2))
    assert torch.equal(first[0]["head.bias"], second[0]["head.bias"])


@pytest.mark.parametrize(
    ("options", "target", "words"),
    [
        ({"local_epochs": 2}, LeNet, r"several steps; set setting\.local_epochs=1"),
        ({}, Normed, r"set setting\.batch_norm=eval"),
    ],
)
def test_clipping_every_example_is_refused_where_updates_are_not_made_of_examples(make_scene, options, target, words):
    with pytest.raises(UserError, match=words):
        observe(Federated(**options), make_scene(target, defense=GradientClipping()))


def test_impossible_numbers_are_refused(make_scene):
    with pytest.raises(UserError, match=r"A client has \d+ examples, fewer than setting\.batch_size=400"):
        observe(Federated(batch_size=400), make_scene())
    with pytest.raises(UserError, match=r"A client has 5 classes, fewer than setting\.batch_size=6"):
        observe(Federated(batch_size=6, unique_labels=True), make_scene())
    with pytest.raises(UserError, match=r"attacks 9 clients, but setting\.clients is 8"):
        observe(Federated(), make_scene(), 9)
    with pytest.raises(UserError, match=r"attacks 9 clients, but setting\.clients is 8"):
        observe(Federated(clients_per_message=3), make_scene())
    with pytest.raises(UserError, match=r"setting\.clients to be a whole number of at least 2, but got '1'"):
        Federated(clients=1)
    with pytest.raises(UserError, match=r"share_buffers=true needs setting\.batch_norm=train"):
        Federated(share_buffers=True, batch_norm="eval")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one gradient of 1 example, with batch norm by its batch's own statistics; the global model is "
         "untrained."),
        ({"batch_size": 4, "rounds": 3, "batch_norm": "eval"},
         "one gradient of 4 examples, with batch norm by the model's running statistics; the global model is trained "
         "for 3 rounds."),
        ({"batch_size": 4, "local_epochs": 2, "local_batch_size": 2, "clients_per_message": 2, "share_buffers": True,
          "pooled_epochs": None, "reshuffle": False},
         "the difference that 4 local steps make of 8 examples, the mean of 2 clients, with batch norm by its batch's "
         "own statistics, shared; the global model is trained on all clients' data."),
    ],
)  # fmt: skip
def test_a_reader_is_told_what_a_message_is_and_how_old_the_model(options, said):
    assert Federated(**options).described(NoDefense.card, batch_norm=True) == [f"A message is {said}"]
    (without,) = Federated(**options).described(NoDefense.card, batch_norm=False)
    assert without == "A message is " + re.sub(", with batch norm by .*;", ";", said)


@pytest.mark.parametrize(("target", "told"), [("lenet", False), ("resnet20", True)])
def test_a_cell_speaks_of_batch_norm_where_its_target_has_some(make_cell, target, told):
    cell = make_cell("attack=dlg", f"target={target}", "dataset.size=8", "attack.iterations=1", "attack.restarts=1")
    assert any("batch norm" in note for note in cell.notes) == told


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"rounds": 0}, [0.0]), ({"rounds": 3}, [0.0, 0.25, 0.5, 0.75]), ({"pooled_epochs": 1}, [1.0])],
)
def test_clients_know_how_old_the_training_is(make_scene, options, expected):
    class Watching(Defense):
        def loss(self, batch):
            self.seen.append(batch.progress)
            return super().loss(batch)

    defense = Watching()
    defense.seen = []
    setting = Federated(clients=2, **options)
    scene = make_scene(defense=defense)
    victim = setting.train(scene, scene.split.private, "victim")
    if "pooled_epochs" in options:
        defense.seen = []
    setting.observe(scene, victim, scene.split.private, "gradients", 2, Ledger())
    assert defense.seen == [share for share in expected for _ in range(2)]


def test_a_clients_data_hook_is_given_its_own_share(make_scene):
    seen = {}

    class Looking(Defense):
        def data(self, train, context):
            seen[context.seed] = (train, context.data.train)
            return train

    scene = make_scene(defense=Looking())
    setting = Federated(clients=4)
    observe(setting, scene)
    assert len(seen) == 4  # a seed for each
    rows = [row.numpy().tobytes() for _, share in seen.values() for row in share.x]
    assert len(rows) == len(scene.split.private.train)
    assert sorted(rows) == sorted(row.numpy().tobytes() for row in scene.split.private.train.x)
    for batch, share in seen.values():
        assert bool((share.x == batch.x[0]).flatten(1).all(1).any())


GRANTED = {"local_training": True, "buffers": True, "defense_loss": False}


def attacker(**more):
    return AttackCard(
        name="a", title="", modalities=("image",), family="", task="instance", access=("gradients",), **more
    )


def test_sealed_messages_are_for_an_attacker_who_takes_part(make_scene):
    _, sealed = observe(Federated(clients=3), make_scene(defense=Sealing()))
    _, plain = observe(Federated(clients=3), make_scene())
    with pytest.raises(NotGrantedError, match="takes_part"):
        sealed.view.limited(GRANTED, attacker())
    opened = sealed.view.limited(GRANTED, attacker(takes_part=True))
    torch.testing.assert_close(opened.messages[0]["head.bias"], plain.view.messages[0]["head.bias"])


def test_a_planted_server_is_what_clients_train_on_and_what_its_attack_sees(make_scene):
    server, honest = Shifting(), make_scene(Mlp)
    scene = dataclasses.replace(honest, server=server, server_key={"attack": "shifting"})
    setting = Federated(rounds=2, clients=4)
    victim, seen = observe(setting, scene)
    plain, _ = observe(setting, honest)
    assert victim.key["server"] == {"attack": "shifting"} and "server" not in plain.key
    assert not torch.equal(victim.module.head.weight, plain.module.head.weight)
    assert server.heard == [(0, 4), (1, 4), (2, 4)]
    torch.testing.assert_close(seen.view.model.head.bias, victim.module.head.bias + 1)
    expected = by_hand(seen.view.model, seen.secret.x[:1], seen.secret.y[:1])
    torch.testing.assert_close(seen.view.messages[0]["head.bias"], expected["head.bias"])


def test_clients_that_drop_out_send_nothing(make_scene):
    setting = Federated(clients=4, dropout=0.5, batch_size=2)
    _, seen = observe(setting, make_scene(), 2)
    assert len(seen.view.messages) == 2 and len(seen.secret) == 4
    for number, message in enumerate(seen.view.messages):
        rows = slice(2 * number, 2 * number + 2)
        expected = by_hand(seen.view.model, seen.secret.x[rows], seen.secret.y[rows])
        torch.testing.assert_close(message["head.bias"], expected["head.bias"])
    with pytest.raises(UserError, match=r"setting\.clients"):
        observe(setting, make_scene(), 3)


def test_the_global_model_is_served_with_its_weights(make_scene):
    scene, setting = make_scene(Mlp), Federated(rounds=2, clients=4)
    victim = setting.train(scene, scene.split.private, "victim")
    view = setting.observe(scene, victim, scene.split.private, "white_box", 0, Ledger()).view
    assert isinstance(view, WhiteBoxView)
    torch.testing.assert_close(
        view.logits(scene.split.private.test.x[:3]), victim.module(scene.split.private.test.x[:3])
    )


def test_later_rounds_go_on_from_stored_earlier_ones(make_scene, monkeypatch):
    counted = []
    original = Clients.updates

    def updates(self, model, number, states, progress):
        counted.append(number)
        return original(self, model, number, states, progress)

    monkeypatch.setattr(Clients, "updates", updates)
    scene = make_scene(Mlp, defense=Counting(), seed=5)

    def trained(rounds):
        counted.clear()
        victim = Federated(rounds=rounds, clients=3).train(scene, scene.split.private, "victim")
        return victim, list(counted)

    _, first = trained(2)
    longer, second = trained(5)
    assert (first, second) == ([0, 1], [2, 3, 4])
    assert {float(state["count"]) for state in longer.states.values()} == {5.0}
    fresh = dataclasses.replace(
        scene, workshop=dataclasses.replace(scene.workshop, store=Store(scene.workshop.store.root / "b"))
    )
    alone = Federated(rounds=5, clients=3).train(fresh, scene.split.private, "victim")
    assert torch.equal(alone.module.head.weight, longer.module.head.weight)
