"""Settings of an attack that were measured on one target: for which sizes of a batch they hold.

A file ``conf/calibration/TARGET__ATTACK.yaml`` sets options of an attack for a target, and says with the key
``calibrated_batches`` at which sizes of a batch they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from mibench.planning.cards import setting_of
from mibench.planning.catalogue import conf_dirs

#: The key; it describes other options and is no part of what a cell is.
CALIBRATED = "calibrated_batches"


def outside_calibration(config: Mapping[str, Any], batch: int) -> str:
    """Return a sentence where options of the attack were calibrated for other batches; empty where none were.

    Args:
        config: The resolved configuration of a cell. Options that it sets to another value than the calibration's are
            no longer the calibration's.
        batch: Inputs behind one message.
    """
    attack, target = config["attack"], config["target"]["name"]
    measured = attack.get(CALIBRATED)
    if not measured or batch in measured:
        return ""
    name = f"{target}__{attack['name']}.yaml"
    root = OmegaConf.create({"setting": {"batch_size": config["setting"].get("batch_size", batch)}})
    for folder in conf_dirs():
        if (file := folder / "calibration" / name).is_file():
            root.attack = OmegaConf.load(file)
    said = OmegaConf.to_container(root, resolve=True)
    given = said.get("attack", {}) if isinstance(said, dict) else {}
    kept = [key for key, value in given.items() if key != CALIBRATED and attack.get(key) == value]
    if not kept:
        return ""
    options = ", ".join(f"attack.{setting_of(key, attack[key])}" for key in kept)
    return (
        f"{options} was calibrated for target '{target}' at batches of {' and '.join(str(one) for one in measured)}, "
        f"and this cell's are of {batch}: another value may reconstruct better."
    )
