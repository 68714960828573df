"""What identifies a cell, and what may be added to mibench without moving an id."""

import textwrap

import pytest
from omegaconf import OmegaConf

from mibench.cli.reproduction import Commands
from mibench.knowledge import GRANTS
from mibench.options import check_types
from mibench.planning import identity
from mibench.planning.catalogue import conf_dir, later_options, read_yaml
from mibench.planning.composition import compose
from mibench.planning.identity import LATER, later_keys, without_later
from mibench.planning.plan import TOP_KEYS, plan_cell


def planned(*words):
    return plan_cell(compose(list(words)))


def test_a_later_key_at_its_old_value_moves_no_id_and_is_not_told(monkeypatch):
    """With the table that holds the key, the cell is the same as without the key; at another value it is not."""
    plain, words = planned("attack=brepmi"), ["attack=brepmi", "knowledge.repeats=1", "evaluation.min_steps=null"]
    said, other = planned(*words), planned("attack=brepmi", "knowledge.repeats=2")
    assert (said.cell_id, said.group_id) == (plain.cell_id, plain.group_id) and other.cell_id != plain.cell_id
    assert "repeats" not in plain.description["knowledge"] and other.description["knowledge"]["repeats"] == 2
    monkeypatch.setattr(identity, "LATER", {})
    assert planned("attack=brepmi").cell_id != plain.cell_id, "it is the table that leaves the key out"


def test_a_revision_moves_only_cells_that_it_concerns(monkeypatch):
    """The third revision of ``federated`` is about rounds that have been trained and about several local epochs."""
    words = ["attack=dlg", "setting.batch_size=4"]
    plain, *moved = (planned(*words, *more) for more in ((), ("setting.rounds=2",), ("setting.local_epochs=2",)))
    assert [one.description["revisions"][1] for one in (plain, *moved)] == [2, 3, 3]
    before = [one.cell_id for one in (plain, *moved)]
    monkeypatch.setattr(identity, "revision_of", lambda node: 2 if node["name"] == "federated" else 1)
    after = [planned(*words, *more) for more in ((), ("setting.rounds=2",), ("setting.local_epochs=2",))]
    assert identity.version_of(after[1].config["setting"]) == 2
    assert all(one.cell_id != other for one, other in zip(after[1:], before[1:], strict=True))


def test_a_new_top_key_in_the_table_adds_nothing_to_a_stored_cell(monkeypatch):
    before = planned("attack=gmi")
    monkeypatch.setitem(TOP_KEYS, "budget.minutes", int | None)
    monkeypatch.setattr(identity, "LATER", {**LATER, "budget.minutes": None})
    cfg = compose(["attack=gmi"])
    OmegaConf.set_struct(cfg, False)
    cfg.budget.minutes = None
    after = plan_cell(cfg)
    assert (after.cell_id, after.group_id, after.description) == (before.cell_id, before.group_id, before.description)
    cfg.budget.minutes = 100
    assert plan_cell(cfg).cell_id != before.cell_id


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """A method outside mibench that gained an option ``patience`` in its second revision, and one that inherits it."""
    (tmp_path / "grown.py").write_text(
        textwrap.dedent(
            """
            from mibench.options import Options, option

            class Base(Options):
                patience: int = option(3, since=2)
                steps: int = 5

            class Grown(Base):
                share: bool = option(False, since=3)

            class Early(Base):
                patience: int = 4
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    later_options.cache_clear()
    return "grown.Grown"


def test_a_later_option_stands_in_its_field_and_is_inherited(grown):
    assert later_options(grown) == {"patience": 3, "share": False}
    assert later_options("grown.Early") == {}, "an option that a class states anew was always its own"


def test_a_later_option_at_its_default_is_left_out_of_every_block(grown):
    block = {"_target_": grown, "name": "grown", "patience": 3, "steps": 5, "share": True}
    assert without_later("attack", block) == {"_target_": grown, "name": "grown", "steps": 5, "share": True}
    wrapper = {"_target_": "mibench.attacks.lomma.Lomma", "name": "lomma", "base": block}
    assert "patience" not in without_later("attack", wrapper)["base"]
    stack = {"_target_": "mibench.defenses.stack.Stack", "name": "stack", "parts": [block]}
    assert "patience" not in without_later("defense", stack)["parts"][0]
    assert later_keys({"attack": block}) == {*LATER, "attack.patience", "attack.share"}


def test_a_later_option_is_checked_like_any_other(grown):
    import importlib

    component = importlib.import_module("grown").Grown
    assert component().patience == 3
    check_types("attack", component, {"patience": 4})
    with pytest.raises(Exception, match=r"Expected attack\.patience to be a whole number, but got 'x'"):
        check_types("attack", component, {"patience": "x"})


def test_a_later_key_is_no_news_to_who_reproduces_an_old_cell(monkeypatch):
    stored = planned("attack=brepmi").description
    assert Commands()(stored).changed == ()
    longer = {**stored, "evaluation": {**stored["evaluation"], "min_steps": 900}}
    assert Commands()(longer).options == ("evaluation.min_steps=900",) and not Commands()(longer).changed


def test_the_table_of_grants_agrees_with_the_configuration():
    written = read_yaml((conf_dir() / "cell.yaml").read_text())["knowledge"]
    assert written == {name: grant.default for name, grant in GRANTS.items()}


@pytest.mark.parametrize("key", ["prior.seed", "evaluation.seed", "dataset.seed"])
def test_a_seed_that_follows_the_cells_keeps_one_group(key):
    first, second = (planned("attack=gmi", f"{key}=${{seed}}", f"seed={seed}") for seed in (1, 2))
    assert first.group_id == second.group_id and first.cell_id != second.cell_id
    fixed = [planned("attack=gmi", f"{key}={seed}", f"seed={seed}").group_id for seed in (1, 2)]
    assert len({first.group_id, *fixed}) == 3, "seeds that are set to numbers are other groups"
    assert planned("attack=gmi", f"{key}=${{seed}}", "seed=1").description[key.partition(".")[0]]["seed"] == 1


def test_networks_of_another_precision_have_keys_of_their_own(make_cell):
    full, half = make_cell("attack=gmi"), make_cell("attack=gmi", "precision=bfloat16")
    assert full.workshop.key == {} and half.workshop.key == {"precision": "bfloat16", "precision_revision": 3}
    blueprints = [cell.scene().blueprint.key for cell in (full, half)]
    assert blueprints[0] == blueprints[1], "so it is the workshop's key that tells them apart"


def test_the_recipe_of_evaluation_models_is_counted_from_two_on_where_they_judge(monkeypatch):
    """A cell of client updates has no evaluation model, and keeps its id."""
    words = (["attack=gmi"], ["attack=dlg"])
    judged, other = (planned(*one) for one in words)
    assert judged.identity["evaluation"]["revision"] == identity.EVALUATION_REVISION == 2
    assert "revision" not in other.identity["evaluation"]
    monkeypatch.setattr(identity, "EVALUATION_REVISION", 3)
    later = [planned(*one) for one in words]
    assert later[0].cell_id != judged.cell_id and later[1].cell_id == other.cell_id
    monkeypatch.setattr(identity, "EVALUATION_REVISION", 1)
    assert "revision" not in planned("attack=gmi").identity["evaluation"]


def test_options_of_the_second_evaluation_models_stand_in_an_id_only_where_they_are_set():
    plain, other = planned("attack=dlg"), planned("attack=gmi", "evaluation.rounds=1", "evaluation.embeddings=[]")
    assert not {"rounds", "embeddings"} & set(plain.description["evaluation"])
    assert other.description["evaluation"]["rounds"] == 1 and other.description["evaluation"]["embeddings"] == []
