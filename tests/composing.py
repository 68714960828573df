"""Hydra composes faster where its files are read once, a choice is followed once and a command is composed once."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import omegaconf
import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override


class Memory:
    """What was made of files, for as long as none of them changes; everyone gets a copy."""

    def __init__(self) -> None:
        self.made: dict[Any, tuple[frozenset[tuple[Path, int]], bytes]] = {}
        self.read: set[tuple[Path, int]] = set()

    @staticmethod
    def stamp(file: Path) -> int:
        """Return when a file was changed; 0 where there is none."""
        return file.stat().st_mtime_ns if file.is_file() else 0

    def get(self, key: Any, make: Callable[[], Any], files: Sequence[Path] = ()) -> Any:
        """Return what ``make`` makes of ``files`` and of those that it reads through this memory."""
        read, kept = self.made.get(key, (None, b""))
        if read is None or any(self.stamp(file) != seen for file, seen in read):
            outer, self.read = self.read, {(file, self.stamp(file)) for file in files}
            try:
                kept = pickle.dumps(make())  # copies of bytes are made five times as fast as deep ones
                read = frozenset(self.read)
            finally:
                self.read = outer
            self.made[key] = read, kept
        self.read |= read
        return pickle.loads(kept)


@contextmanager
def remembered_files() -> Iterator[None]:
    """What Hydra makes of files is kept until one of them changes: their content, and what groups' choices come to.

    Whatever else a command sets is set anew. An interpolation is parsed once; who reads its tree does not change it.
    """
    memory, parse = Memory(), functools.cache(omegaconf.base.parse)
    load, follow = ConfigRepository.load_config, config_loader_impl.create_defaults_list
    merge = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list

    def places(repo: IConfigRepository) -> tuple[str, ...]:
        return tuple(source.path for source in repo.get_sources())

    def loaded(self: ConfigRepository, config_path: str) -> Any:
        files = [Path(place, f"{config_path.removesuffix('.yaml')}.yaml") for place in places(self)]
        return memory.get(("file", places(self), config_path), lambda: load(self, config_path), files)

    def followed(repo: IConfigRepository, config_name: str, overrides_list: list[Override], **how: bool) -> Any:
        def chooses(word: Override) -> bool:
            return word.is_sweep_override() or (
                repo.group_exists(word.key_or_group) and not isinstance(word.value(), dict)
            )

        words = [word for word in overrides_list if chooses(word)]
        key = "choices", places(repo), config_name, *(word.input_line for word in words), *how.items()
        found = memory.get(key, lambda: follow(repo, config_name, words, **how))
        found.config_overrides = [word for word in overrides_list if not chooses(word)]
        return found

    def merged(self: Any, defaults: list[ResultDefault], repo: IConfigRepository) -> Any:
        key = "merged", places(repo), *map(repr, defaults)
        return memory.get(key, lambda: merge(self, defaults, repo))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", loaded)
        patch.setattr(config_loader_impl, "create_defaults_list", followed)
        patch.setattr(config_loader_impl.ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        for module in (omegaconf.base, omegaconf._utils):
            patch.setattr(module, "parse", parse)
        yield


@contextmanager
def composed_once() -> Iterator[None]:
    """Hydra composes a run once, and not a second time to see whether ``hydra.mode`` is set, as no word here does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", lambda *_a, **_k: None)
        yield
