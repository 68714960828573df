"""What the tests of several update defenses share: a client, and what DLG makes of what it shares."""

import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.dlg import Dlg
from mibench.defenses.base import Client
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.settings.federated import client_gradient
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal

MESSAGES = 4


@pytest.fixture(scope="session")
def share():
    """What one client shares: ``share(defense, model, batch)``, with ``seed`` and ``state`` of the client."""

    def make(defense, model, batch, seed=0, state=None):
        client = Client(0, 0, 2, model, batch, seed, {} if state is None else state)
        return defense.update(client_gradient(model, batch, defense), client)

    return make


@pytest.fixture(scope="session")
def dlg_psnr(digits8, share):
    """Mean decibels of what DLG makes of four single images behind a defense, labels granted: ``dlg_psnr(defense)``."""

    def measure(defense):
        torch.manual_seed(0)
        model = LeNet(spec=digits8.spec, channels=8).eval()
        rows = torch.randperm(len(digits8.private.train), generator=torch.Generator().manual_seed(1))[:MESSAGES]
        secret = digits8.private.train[rows]
        sent = [share(defense, model, secret[torch.tensor([i])], seed=i) for i in range(MESSAGES)]
        view = GradientsView.of(model, sent, 1, digits8.spec, Ledger(), torch.device("cpu"))
        granted = Knowledge(facts={"labels": secret.y}, described=("labels",))
        attack = Dlg(iterations=40, restarts=1)
        result = attack(view, granted, InstanceGoal(MESSAGES, 1), seed=0).reconstruction
        return float((-10 * squared_errors(result.values, secret.x).log10()).clamp_max(100).mean())

    return measure
