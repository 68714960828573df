import re
from dataclasses import replace

import pytest

from mibench.card import AttackCard, DatasetCard, DefenseCard, PriorCard, SettingCard, TargetCard
from mibench.planning.cards import family_of, read_card
from mibench.planning.compatibility import CellCards, compatible

DATASET = DatasetCard(name="faces", title="Faces", modalities=("image",), licence="none", may_show=True)
SETTING = SettingCard(
    name="central", title="Central", modalities=("image", "tabular"), access=("white_box", "scores", "none")
)
TARGET = TargetCard(name="net", title="Net", modalities=("image",))
ATTACK = AttackCard(
    name="attack", title="Attack", modalities=("image",), family="any", task="class", access=("white_box", "scores"),
    needs=("prior",),
)  # fmt: skip
DEFENSE = DefenseCard(name="round", title="Round", modalities=("image",), hooks=("output",), affects=("scores",))
PRIOR = PriorCard(name="gan", title="GAN", modalities=("image",))
CELL = CellCards(
    dataset=DATASET, setting=SETTING, target=TARGET, attack=ATTACK, defense=DEFENSE, access="scores", prior=PRIOR
)


def test_a_cell_whose_parts_meet_has_no_reason():
    assert compatible(CELL) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"access": "white_box"}, ["Vacuous", "round", "output", "weights"]),
        ({"attack": replace(ATTACK, modalities=("text",))}, ["Incompatible", "text", "image"]),
        ({"attack": replace(ATTACK, task="attribute")}, ["Incompatible", "attribute", "no truth"]),
        ({"attack": replace(ATTACK, access=("labels",))}, ["Incompatible", "labels", "attack.access"]),
        ({"setting": replace(SETTING, access=("none",))}, ["Incompatible", "does not offer"]),
        (
            {"defense": replace(DEFENSE, withholds=("scores",))},
            ["Incompatible", "'round' withholds scores", "take an attack that works with access labels"],
        ),
        (
            {
                "defense": replace(DEFENSE, withholds=("scores",)),
                "attack": replace(ATTACK, access=("scores", "labels")),
            },
            ["Incompatible", "'round' withholds scores", "set attack.access=labels"],
        ),
        ({"prior": None}, ["Incompatible", "latent space", "prior=wgan_gp"]),
        ({"attack": replace(ATTACK, space="style")}, ["Incompatible", "prior 'gan' has latent only", "style_gan"]),
        ({"prior": replace(PRIOR, asks="white_box")}, ["Incompatible", "trained with access 'white_box'", "'scores'"]),
        (
            {"attack": replace(ATTACK, largest_batch=1), "batch_size": 2},
            ["batches of at most 1", "a message has 2"],
        ),
    ],
)
def test_the_reason_names_what_cannot_meet(change, words):
    reason = compatible(replace(CELL, **change))
    assert all(word in reason for word in words), reason
    assert reason.count(". ") == 0 and reason.endswith("."), "one sentence"


@pytest.mark.parametrize("access", ["white_box", "explanations", "gradients", "features"])
def test_a_victim_that_is_no_module_is_open_to_queries_alone(access):
    tree = replace(DEFENSE, name="tree", hooks=("training",), affects=("scores",), replaces="decision tree")
    everything = {"access": ("scores", "white_box", "explanations", "gradients", "features")}
    cell = replace(CELL, defense=tree, setting=replace(SETTING, **everything), attack=replace(ATTACK, **everything))
    reason = compatible(replace(cell, access=access))
    assert all(word in reason for word in ["Incompatible", "'tree'", "decision tree", f"'{access}'", "no gradients"])
    assert reason.count(". ") == 0 and reason.endswith("."), "one sentence"
    assert compatible(replace(cell, access="scores")) == ""
    assert "decision tree" not in compatible(replace(cell, access=access, defense=replace(tree, replaces="")))


def test_an_update_defense_before_a_global_model_that_no_update_made_is_vacuous():
    federated = replace(SETTING, name="federated", training_hooks=("update", "protocol"))
    dgc = replace(DEFENSE, name="dgc", hooks=("update",), affects=("gradients",))
    cell = replace(CELL, setting=federated, defense=dgc, access="white_box", rounds=0)
    reason = compatible(cell)
    assert all(word in reason for word in ["Vacuous", "'dgc'", "update", "setting.rounds=0", "set setting.rounds=1"])
    assert reason.count(". ") == 0 and reason.endswith("."), "one sentence"
    both = replace(dgc, hooks=("training", "update"))
    message = {"access": "gradients", "setting": replace(federated, access=("gradients",))}
    seen = replace(cell, **message, attack=replace(ATTACK, access=("gradients",)))
    for other in (replace(cell, rounds=1), replace(cell, defense=both), seen):
        assert compatible(other) == ""


def test_no_defense_is_never_vacuous():
    none = DefenseCard(name="none", title="None", modalities=("image",), hooks=(), affects=())
    assert compatible(replace(CELL, defense=none, access="white_box")) == ""


def test_what_a_defense_leaves_is_granted():
    defense = replace(DEFENSE, affects=("scores", "labels"), withholds=("scores",))
    labels = replace(ATTACK, access=("scores", "labels"))
    setting = replace(SETTING, access=("scores", "labels"))
    assert compatible(replace(CELL, attack=labels, setting=setting, defense=defense, access="labels")) == ""


def test_words_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="modality"):
        replace(ATTACK, modalities=("smell",))
    with pytest.raises(ValueError, match="access"):
        replace(ATTACK, access=("telepathy",))
    with pytest.raises(ValueError, match="access"):
        replace(DEFENSE, withholds=("telepathy",))


def test_a_card_is_read_without_importing_its_module(tmp_path):
    source = tmp_path / "method.py"
    source.write_text(
        "raise RuntimeError('imported')\n"
        "class Method:\n"
        "    card = TargetCard(name='method', title='Method', modalities=('image',), year=2020)\n"
    )
    assert read_card(source, "Method") == TargetCard(name="method", title="Method", modalities=("image",), year=2020)
    with pytest.raises(ValueError, match="no class 'Other'"):
        read_card(source, "Other")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("title=TITLE", "'title' of its card is 'TITLE', but has to be a literal"),
        ("titel='x'", "unexpected keyword argument 'titel'; mibench/card.py says"),
        ("year=2020", "missing 1 required keyword-only argument: 'title'"),
    ],
)
def test_a_card_that_cannot_be_read_is_said_in_a_sentence(tmp_path, field, said):
    source = tmp_path / "method.py"
    source.write_text(f"class Method:\n    card = TargetCard(name='method', modalities=('image',), {field})\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_card(source, "Method")


@pytest.mark.parametrize(
    ("arch", "family"),
    [("resnet152", "residual"), ("wide_resnet50_2", "residual"), ("vgg16_bn", "vgg"), ("vit_b_16", "transformer"),
     ("densenet169", "densenet"), ("", "")],
)  # fmt: skip
def test_an_architecture_that_an_option_names_has_its_family(arch, family):
    assert family_of(TARGET, {"arch": arch}) == family
    assert family_of(replace(TARGET, family="residual"), {"arch": "vgg16"}) == "residual"


def test_levels_go_the_way_that_is_said_to_be_stronger():
    def made(stronger, *levels):
        return replace(DEFENSE, strength="step", stronger=stronger, levels=levels)

    assert made("higher", 0.1, 0.2).levels == (0.1, 0.2) and made("lower", 3.0, 1.0).stronger == "lower"
    for stronger, levels in (("higher", (0.2, 0.1)), ("lower", (1.0, 3.0)), ("higher", (1.0, 3.0, 2.0))):
        with pytest.raises(ValueError, match=f"do not go {stronger}"):
            made(stronger, *levels)
    with pytest.raises(ValueError, match="direction"):
        made("up", 1.0)
