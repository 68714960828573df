"""``seeds=all``: the seeds of prior, evaluation models and split follow the cell's."""

import pytest
import torch

from mibench.cli.reproduction import Commands
from mibench.cli.stored import replan
from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell


def planned(*words):
    return plan_cell(compose(list(words)))


SEEDED = ("prior.seed", "evaluation.seed", "dataset.seed")


def test_with_seeds_all_every_seed_follows_the_cells_and_cells_of_all_seeds_are_one_group():
    cells = [planned("attack=gmi", "seeds=all", f"seed={seed}") for seed in (0, 1)]
    assert cells[0].group_id == cells[1].group_id and cells[0].cell_id != cells[1].cell_id
    assert [[cell.config[key[:-5]]["seed"] for key in SEEDED] for cell in cells] == [[0] * 3, [1] * 3]
    usual = [planned("attack=gmi", f"seed={seed}") for seed in (0, 1)]
    assert len({cells[0].group_id, usual[0].group_id}) == 2 == len({cells[0].cell_id, usual[0].cell_id})
    said = planned("attack=gmi", "seeds=victim", "seed=1")
    assert (said.cell_id, said.description) == (usual[1].cell_id, usual[1].description), "as without the key"
    assert "seeds" not in said.description and cells[1].description["seeds"] == "all"
    assert planned("attack=mi_face", "seeds=all").follows == SEEDED[1:], "a cell without a prior has no seed of one"


def test_a_seed_of_its_own_beside_seeds_all_is_refused():
    with pytest.raises(UserError, match=r"seeds=all .* but prior\.seed=3 is set too; leave out one of them\."):
        planned("attack=gmi", "seeds=all", "seed=1", "prior.seed=3")
    alike = planned("attack=gmi", "seeds=all", "seed=1", "prior.seed=${seed}", "dataset.seed=1")
    assert alike.cell_id == planned("attack=gmi", "seeds=all", "seed=1").cell_id


def test_a_cell_of_all_seeds_is_reproduced_by_its_key_and_its_seed():
    plan = planned("attack=gmi", "seeds=all", "seed=2")
    command = Commands()(plan.description)
    assert command.options == ("seeds=all",) and command.command.endswith("seed=2 seeds=all") and not command.changed
    again = replan(plan.description, [])
    assert (again.cell_id, again.group_id) == (plan.cell_id, plan.group_id)


def test_with_seeds_all_split_prior_judges_and_reconstruction_are_others_and_at_seed_0_the_usual_ones(make_cell):
    words = [
        "attack=random_prior", "prior.iterations=2", "prior.batch_size=16", "evaluation.models=[mlp]", "dataset.size=8",
        "target.recipe.epochs=1", "target.recipe.min_steps=0", "metric=[knn_distance]",
    ]  # fmt: skip
    usual, first, other = (make_cell(*words, *more) for more in ([], ["seeds=all"], ["seeds=all", "seed=1"]))
    assert usual.split.private.train.digest() == first.split.private.train.digest()
    assert usual.split.private.train.digest() != other.split.private.train.digest()
    judges = [cell.evaluators[0].model.head.weight for cell in (usual, first, other)]
    assert torch.equal(judges[0], judges[1]) and not torch.equal(judges[0], judges[2])
    answers = [cell.result.reconstruction.values for cell in (usual, first, other)]
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])
    assert usual.result.seconds == first.result.seconds, "the reconstruction of seed 0 came from the store"
