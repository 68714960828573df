"""Hydra composes faster where its files are read once and a command is composed once."""

import functools
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import omegaconf
import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra


@contextmanager
def remembered_files() -> Iterator[None]:
    """Hydra reads a configuration file once, and again where it was changed; every composition gets a copy.

    An interpolation is parsed once, too: what reads its tree does not change it.
    """
    read, load = {}, ConfigRepository.load_config

    def remembered(self: ConfigRepository, config_path: str) -> Any:
        files = [Path(source.path, f"{config_path.removesuffix('.yaml')}.yaml") for source in self.get_sources()]
        key = config_path, *((file, file.stat().st_mtime_ns if file.is_file() else 0) for file in files)
        if key not in read:
            read[key] = pickle.dumps(load(self, config_path))  # five times as fast as a deep copy
        return pickle.loads(read[key])

    parse = functools.cache(omegaconf.base.parse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", remembered)
        for module in (omegaconf.base, omegaconf._utils):
            patch.setattr(module, "parse", parse)
        yield


@contextmanager
def composed_once() -> Iterator[None]:
    """Hydra composes a run once, and not a second time to see whether ``hydra.mode`` is set, as no word here does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", lambda *_a, **_k: None)
        yield
