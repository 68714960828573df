"""A pytest plugin: of the truth tests of methods, run those alone that a change can reach (``--reach``).

A truth test is ``tests/AXIS/test_NAME.py`` where ``conf/AXIS/NAME.yaml`` exists; every other test always runs. A change
is what differs from BASE, uncommitted and new files included. BASE is the environment variable of that name, else the
merge base with the remote's main, and on a clean main its first parent. Where git knows no BASE, all run.

A file of mibench reaches a truth test that imports it, however indirectly. A yaml reaches the tests that name it and
what its defaults choose. What every cell is made of (``conf/cell.yaml``, ``pyproject.toml``, ``tests/conftest.py`` ...)
reaches all.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

#: Folders of components, and where the choices of each stand below conf/.
AXES = {f"{axis}s": axis for axis in ("attack", "defense", "metric", "prior", "dataset", "target")}

#: What a change of these reaches nobody can say; all tests run.
EVERYWHERE = re.compile(
    r"conf/cell\.yaml|conf/(budget|paths)/.*|pyproject\.toml|setup\.py|constraints\.txt|tests/(conftest|reach)\.py"
    r"|mibench/(?!leaderboard/page/assets/).*(?<!\.py)"
)

#: What composes a cell, whose defaults then count; and what also measures it, with whatever metrics its task has.
COMPOSES = re.compile(r"\bmake_cell\b|\bcompose\(|\bmain\(|\bmibench\.(run|audit)\(")
MEASURES = re.compile(r"\.run\(|\.scores\(|\bmain\(|\bmibench\.audit\(")


#: The evaluation models of every cell.
EVALUATION = ("residual", "mlp", "cnn")

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


class Tree:
    """The files of a checkout, and what each of them stands on.

    Args:
        root: The checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.defaults = dict(self._defaults(root / "conf" / "cell.yaml", ""))

    def truth_tests(self) -> dict[str, Path]:
        """Return the truth tests by their path in the checkout, each with the yaml of its method."""
        found = {}
        for folder, axis in AXES.items():
            for test in sorted((self.root / "tests" / folder).glob("test_*.py")):
                choice = self.root / "conf" / axis / f"{test.stem.removeprefix('test_')}.yaml"
                if choice.exists():
                    found[test.relative_to(self.root).as_posix()] = choice
        return found

    def stands_on(self, test: str, choice: Path) -> set[str]:
        """Return every file that a truth test stands on, itself included."""
        seen: set[str] = set()
        folder = (self.root / test).parent
        conftests = [up / "conftest.py" for up in (folder, self.root / "tests") if (up / "conftest.py").exists()]
        waiting = [self.root / test, choice, *conftests]
        while waiting:
            file = waiting.pop()
            name = file.relative_to(self.root).as_posix()
            if name not in seen:
                seen.add(name)
                waiting += self.next_to(file)
        return seen

    @cache  # noqa: B019 - a tree lives as long as the session
    def next_to(self, file: Path) -> list[Path]:
        """Return the files that one file names: modules that it imports, choices that it composes."""
        if not file.exists():
            return []
        if file.suffix == ".yaml":
            return self._of_yaml(file)
        text = file.read_text(encoding="utf-8")
        found = [path for module in imported(text, self.package_of(file)) for path in self.modules(module)]
        if file.name.startswith("test_"):
            found += [path for module in re.findall(r"[\"'](mibench(?:\.\w+)+)", text) for path in self.modules(module)]
            found += self._composed(text)
        return found

    def package_of(self, file: Path) -> str:
        """Return the dotted package of a file, for relative imports."""
        return ".".join(file.relative_to(self.root).parent.parts)

    def modules(self, dotted: str) -> Iterator[Path]:
        """Yield the files that a dotted name of mibench may stand for, from the package down, removed ones too."""
        parts = dotted.split(".")
        for count in range(1, len(parts) + 1):
            path = self.root.joinpath(*parts[:count])
            yield from (path / "__init__.py", path.with_suffix(".py"))

    def _composed(self, text: str) -> list[Path]:
        """Return the yamls whose names stand as words in a test's strings, and those of the cells that it composes."""
        nodes = list(ast.walk(ast.parse(text)))
        prose = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, DOCUMENTED)}
        strings = {
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        } - prose
        words = {word for one in strings for word in re.findall(r"\w+", one)}
        found = [file for axis in (*AXES.values(), "setting") for file in self._choices(axis) if file.stem in words]
        if COMPOSES.search(text):
            found += [self.root / "conf" / axis / f"{name}.yaml" for axis, name in self.defaults.items()]
            found += [
                self.root / "conf" / "target" / f"{name}.yaml" for name in ("residual", "mlp", "cnn")
            ]  # evaluation
            found += self._choices("metric") if MEASURES.search(text) else []
        return [file for file in found if file.exists()]

    @cache  # noqa: B019 - a tree lives as long as the session
    def _choices(self, axis: str) -> list[Path]:
        return sorted((self.root / "conf" / axis).glob("*.yaml"))

    def _of_yaml(self, file: Path) -> list[Path]:
        """Return the module of a choice, the choices that it makes, and settings calibrated for it."""
        target = re.search(r"^\s*_target_: (mibench[\w.]+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        found = list(self.modules(target.group(1))) if target else []
        chosen = [self.root / "conf" / axis / f"{name}.yaml" for axis, name in self._defaults(file, file.parent.name)]
        calibrated = (self.root / "conf" / "calibration").glob(f"*__{file.stem}.yaml")
        return [*found, *(one for one in chosen if one.exists()), *(calibrated if file.parent.name == "attack" else ())]

    @staticmethod
    def _defaults(file: Path, axis: str) -> Iterator[tuple[str, str]]:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for one in content.get("defaults", []):
            for key, name in one.items() if isinstance(one, dict) else ():
                group = key.removeprefix("override ").removeprefix("optional ").lstrip("/").partition("@")[0]
                yield group or axis, str(name)


def imported(text: str, package: str) -> Iterator[str]:
    """Yield the dotted names that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mibench")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).strip(".")
            if base.split(".")[0] == "mibench":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def git(root: Path, *words: str) -> str | None:
    """Return what git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def base_of(root: Path) -> str | None:
    """Return the commit that a change is measured from; None where there is none.

    Raises:
        pytest.UsageError: If BASE is no commit.
    """
    if said := os.environ.get("BASE"):
        if found := git(root, "rev-parse", "--verify", f"{said}^{{commit}}"):
            return found
        raise pytest.UsageError(f"BASE={said} is no commit of this repository; give one, or leave it out.")
    head, dirty = git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain")
    merged = git(root, "merge-base", "HEAD", "origin/main")
    if merged and (merged != head or dirty):
        return merged
    return git(root, "rev-parse", "--verify", "HEAD^")


def changed_since(root: Path, base: str) -> list[str]:
    """Return the files that differ from a commit, uncommitted and new ones included."""
    known = git(root, "diff", "--name-only", "--no-renames", base) or ""
    fresh = git(root, "ls-files", "--others", "--exclude-standard") or ""
    return sorted({*known.splitlines(), *fresh.splitlines()})


def left_out(root: Path) -> tuple[str, list[str]]:
    """Return the commit that was compared with, and the truth tests that no change since reaches."""
    if not (base := base_of(root)):
        return "", []
    changed = changed_since(root, base)
    if any(EVERYWHERE.fullmatch(name) for name in changed):
        return base, []
    tree = Tree(root)
    tests = tree.truth_tests()
    return base, [test for test, choice in tests.items() if not tree.stands_on(test, choice) & {*changed}]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--reach", action="store_true", help="leave out the truth tests that no change since BASE reaches")


def pytest_configure(config: pytest.Config) -> None:
    """Find out, once a process, which files are left out."""
    config.stash[LEFT_OUT] = left_out(config.rootpath) if config.getoption("--reach") else ("", [])
    config.pluginmanager.register(Summary(config), "mibench-summary")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file out."""
    _, names = config.stash[LEFT_OUT]
    return (
        True if names and collection_path.as_posix() in {(config.rootpath / one).as_posix() for one in names} else None
    )


LEFT_OUT = pytest.StashKey[tuple[str, list[str]]]()

#: CPU seconds that one test file may take, that all of them may take on average, and that all may take together.
MOST, MEAN, ALL = 15, 10, 800


def spent() -> float:
    """Return the CPU seconds of this process and of the children that ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note when a test began."""
    item.stash[BEGAN] = spent()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Tell how much CPU a test took, with the fixtures that were made for it."""
    try:
        return (yield)
    finally:
        item.user_properties.append(("cpu", spent() - item.stash[BEGAN]))


BEGAN = pytest.StashKey[float]()


class Summary:
    """Gathers the CPU seconds of every file and prints what there is to say at the end.

    Args:
        config: The session's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.cpu: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what one test took."""
        if report.when == "teardown":
            file = report.nodeid.partition("::")[0]
            self.cpu[file] = self.cpu.get(file, 0.0) + sum(
                value for name, value in report.user_properties if name == "cpu"
            )

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the dear files, the mean, and last how many were left out."""
        if self.cpu:
            for file, seconds in sorted(self.cpu.items(), key=lambda one: -one[1]):
                if seconds > MOST:
                    terminalreporter.write_line(f"{file}: {seconds:.1f} CPU seconds (at most {MOST})")
            total = sum(self.cpu.values())
            terminalreporter.write_line(
                f"{len(self.cpu)} test files, {total / len(self.cpu):.1f} CPU seconds each (at most {MEAN}), "
                f"{total:.0f} in all (at most {ALL} without slow tests)"
            )
        base, names = self.config.stash[LEFT_OUT]
        if self.config.getoption("--reach"):
            told = f"no change since {base[:12]} reaches them" if base else "git knows no commit to compare with"
            terminalreporter.write_line(f"left out: {len(names)} truth test files ({told})")
