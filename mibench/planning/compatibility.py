"""Which components can meet in a cell: named rules on cards, each of which says in one sentence why they cannot.

A cell is *incompatible* where task, modality, access or batch cannot meet. It is *vacuous* where the defense cannot
change anything that the attack sees. Either is refused before anything is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mibench.card import AttackCard, DatasetCard, DefenseCard, Modality, PriorCard, SettingCard, TargetCard

#: The prior of the catalogue to name where a cell lacks one with this space.
USUAL_PRIOR: Mapping[str, str] = {
    "latent": "wgan_gp",
    "class": "projection_cgan",
    "style": "style_gan",
    "inpainting": "inpainting_gan",
}


@dataclass(frozen=True, kw_only=True)
class CellCards:
    """The cards that meet in one cell, with what else decides a meeting.

    Attributes:
        prior: The prior's card; None where the cell has none.
        access: The access the attack is run with.
        batch_size: Examples behind one message in a federated cell, 0 elsewhere.
        finished: Whether the target comes trained (``target.weights``).
        rounds: Rounds of clients' updates behind the victim (``setting.rounds``); None where the setting has none.
    """

    dataset: DatasetCard
    setting: SettingCard
    target: TargetCard
    attack: AttackCard
    defense: DefenseCard
    access: str
    prior: PriorCard | None = None
    batch_size: int = 0
    finished: bool = False
    rounds: int | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the dataset may hold that the attack works on; what the dataset may hold where that is nothing."""
        shared = tuple(one for one in self.dataset.modalities if one in self.attack.modalities)
        return shared or self.dataset.modalities


def arriving(count: int, dropout: float) -> int:
    """Return how many of ``count`` clients are left of which a share drops out.

    >>> arriving(8, 0.25)
    6
    """
    return count - int(dropout * count)


#: Return why a cell cannot be run, as one sentence, or an empty string where the rule has nothing against it.
Rule = Callable[[CellCards], str]


def modalities_meet(cell: CellCards) -> str:
    """Target, setting, attack and defense work on a modality of the dataset."""
    dataset = cell.dataset
    parts = (("target", cell.target), ("setting", cell.setting), ("attack", cell.attack), ("defense", cell.defense))
    for part, card in parts:
        if not set(dataset.modalities) & set(card.modalities):
            return (
                f"Incompatible: {part} '{card.name}' works on {_list(card.modalities)}, but dataset "
                f"'{dataset.name}' holds {_list(dataset.modalities)} data."
            )
    return ""


def dataset_has_the_truth(cell: CellCards) -> str:
    """The dataset has a truth for what the attack reconstructs."""
    attack, dataset = cell.attack, cell.dataset
    if attack.task in dataset.tasks:
        return ""
    return (
        f"Incompatible: attack '{attack.name}' reconstructs the task '{attack.task}', for which dataset "
        f"'{dataset.name}' has no truth (it has {_list(dataset.tasks)})."
    )


def attack_works_with_the_access(cell: CellCards) -> str:
    """The attack works with the access that the cell grants."""
    attack = cell.attack
    if cell.access in attack.access:
        return ""
    return (
        f"Incompatible: attack '{attack.name}' works with access {_list(attack.access)}, but the cell grants "
        f"'{cell.access}'; set attack.access to one of them."
    )


def setting_offers_the_access(cell: CellCards) -> str:
    """The setting offers the access that the attack needs."""
    attack, setting = cell.attack, cell.setting
    if cell.access in setting.access:
        return ""
    return (
        f"Incompatible: attack '{attack.name}' needs access '{cell.access}', which setting '{setting.name}' does "
        f"not offer (it offers {_list(setting.access)})."
    )


def batch_is_small_enough(cell: CellCards) -> str:
    """A client's message has no more examples behind it than the attack is defined for."""
    attack = cell.attack
    if not attack.largest_batch or cell.batch_size <= attack.largest_batch:
        return ""
    return (
        f"Incompatible: attack '{attack.name}' is defined for client batches of at most {attack.largest_batch}, "
        f"but here a message has {cell.batch_size} behind it (setting.batch_size, setting.clients_per_message)."
    )


def prior_has_the_space(cell: CellCards) -> str:
    """An attack that searches a generator has one with the space that it searches."""
    attack = cell.attack
    if "prior" not in attack.needs:
        return ""
    if cell.prior is None:
        return (
            f"Incompatible: attack '{attack.name}' searches a generator's {attack.space} space; set "
            f"prior={USUAL_PRIOR[attack.space]} (now: none)."
        )
    if attack.space not in cell.prior.spaces:
        return (
            f"Incompatible: attack '{attack.name}' searches a generator's {attack.space} space, but prior "
            f"'{cell.prior.name}' has {_list(cell.prior.spaces)} only; set prior={USUAL_PRIOR[attack.space]}."
        )
    return ""


def prior_may_ask_the_victim(cell: CellCards) -> str:
    """A prior that asks the victim while it is trained is granted the access that it needs."""
    if "prior" not in cell.attack.needs or cell.prior is None or cell.prior.asks in ("", cell.access):
        return ""
    return (
        f"Incompatible: prior '{cell.prior.name}' is trained with access '{cell.prior.asks}' to the victim, "
        f"but the cell grants '{cell.access}'; choose another prior."
    )


def target_is_a_network_for_the_access(cell: CellCards) -> str:
    """An attack that needs gradients or features does not meet a defense that trains no network."""
    defense = cell.defense
    if not defense.replaces or cell.access in ("scores", "labels", "none"):
        return ""
    return (
        f"Incompatible: defense '{defense.name}' trains a {defense.replaces} in the place of the target, which has "
        f"no gradients and no features, but the cell grants access '{cell.access}'; choose an attack with access "
        "scores or labels."
    )


def defense_leaves_the_access(cell: CellCards) -> str:
    """The defense does not withhold the access that the cell grants."""
    attack, defense = cell.attack, cell.defense
    if cell.access not in defense.withholds:
        return ""
    way = "set attack.access=labels" if "labels" in attack.access else "take an attack that works with access labels"
    return (
        f"Incompatible: defense '{defense.name}' withholds {_list(defense.withholds)}, so attack '{attack.name}' "
        f"with access '{cell.access}' is given nothing; {way}."
    )


def defense_changes_what_is_seen(cell: CellCards) -> str:
    """The defense can change something that the attack sees; a cell where it cannot is vacuous."""
    defense = cell.defense
    met = {cell.access}
    if cell.access == "white_box" and "update" in cell.setting.training_hooks:
        met.add("gradients")  # the global model is made of what clients sent
    if not defense.hooks or met & set(defense.affects):
        return ""
    seen = {"none": "nothing of the victim", "white_box": "the victim's weights"}
    meets = seen.get(cell.access, f"the victim's {cell.access}")
    return (
        f"Vacuous: defense '{defense.name}' acts on {_list(defense.hooks)}, which an attacker with access "
        f"'{cell.access}' never meets: attack '{cell.attack.name}' sees {meets}, so the result would be that of "
        "defense=none."
    )


def defense_has_met_updates(cell: CellCards) -> str:
    """A defense that acts only on what clients send has met some of it before a global model is seen."""
    defense, acts = cell.defense, set(cell.defense.hooks)
    if cell.access != "white_box" or cell.rounds != 0 or not acts or acts - {"update", "protocol"}:
        return ""
    return (
        f"Vacuous: defense '{defense.name}' acts on {_list(defense.hooks)}, but with setting.rounds=0 no client sends "
        f"anything before attack '{cell.attack.name}' sees the victim's weights; set setting.rounds=1 or more."
    )


def finished_model_needs_no_training(cell: CellCards) -> str:
    """A model that comes trained meets no defense that would have to train it again."""
    defense, goes_on = cell.defense, cell.setting.training_hooks
    if not (cell.finished and defense.trains) or (defense.finished and not goes_on):
        return ""
    return (
        f"Incompatible: defense '{defense.name}' acts on {', '.join(defense.trains)}, so it would need the "
        "model trained again, but target.weights is a finished one; leave target.weights out to train its "
        "architecture under the defense."
    )


def finished_model_is_served_by_the_defense(cell: CellCards) -> str:
    """What the defense does to a model that comes trained lies between it and the attacker."""
    defense = cell.defense
    if not (cell.finished and defense.trains) or defense.reaches_finished(cell.access):
        return ""
    return (
        f"Vacuous: target.weights is a finished model, of which defense '{defense.name}' changes its "
        f"{', '.join(defense.finished)} alone, which an attacker with access '{cell.access}' never meets; leave "
        "target.weights out to train its architecture under the defense."
    )


#: All rules in the order in which they are asked; the first one that objects is what a person is told.
RULES: tuple[Rule, ...] = (
    modalities_meet,
    dataset_has_the_truth,
    attack_works_with_the_access,
    setting_offers_the_access,
    batch_is_small_enough,
    prior_has_the_space,
    prior_may_ask_the_victim,
    target_is_a_network_for_the_access,
    defense_leaves_the_access,
    defense_changes_what_is_seen,
    defense_has_met_updates,
    finished_model_needs_no_training,
    finished_model_is_served_by_the_defense,
)


def compatible(cell: CellCards) -> str:
    """Return the reason why a cell cannot be run, as one sentence, or an empty string where it can."""
    return next((reason for rule in RULES if (reason := rule(cell))), "")


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words) if words else "nothing"
