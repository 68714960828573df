"""Classes read as text: where they are defined, and what they inherit from, without importing them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mibench.errors import UserError
from mibench.storage.fetching import Download

PACKAGE = Path(__file__).parent.parent


def source_of(module: str) -> Path:
    """Return the source file of a module, which is not imported where it is mibench's own.

    Raises:
        UserError: If there is none.
    """
    if module.startswith("mibench."):
        path = PACKAGE.joinpath(*module.split(".")[1:])
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise UserError(f"The module '{module}' cannot be found; is it installed, or on PYTHONPATH?")
    return Path(found.origin)


@cache
def parsed(file: Path) -> ast.Module:
    """Return a file as a syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"))


def defined_in(file: Path, name: str) -> tuple[Path, ast.ClassDef] | None:
    """Return where a class that ``file`` defines, or imports from mibench, is defined; None for any other."""
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return file, node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mibench."):
            for word in node.names:
                if (word.asname or word.name) == name:
                    return defined_in(source_of(str(node.module)), word.name)
    return None


def lineage(file: Path, name: str) -> Iterator[ast.ClassDef]:
    """Yield a class and all that it inherits from in mibench, or in its own file, the farthest ones first."""
    found = defined_in(file, name)
    if found is None:
        return
    where, node = found
    for base in reversed(node.bases):
        inner = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(inner, ast.Name):
            yield from lineage(where, inner.id)
    yield node


def summary_of(file: Path, name: str) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    found = defined_in(file, name)
    text = (ast.get_docstring(found[1]) or "") if found else ""
    return " ".join(text.partition("\n\n")[0].split())


def downloads_of(file: Path, name: str) -> tuple[Download, ...]:
    """Return the literal ``downloads`` of a class, its own or those it inherits; empty where there are none."""
    found: tuple[Download, ...] = ()
    for node in lineage(file, name):
        for statement in node.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "downloads":
                assert isinstance(statement.value, ast.Tuple), f"{file}: write downloads = (Download(...), ...)"
                found = tuple(_literal(call) for call in statement.value.elts)
    return found


def _literal(call: ast.expr) -> Download:
    assert isinstance(call, ast.Call), "downloads holds Download(...) literals only"
    return Download(**{word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg})
