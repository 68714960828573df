"""Classes read as text: where they are defined, and what they inherit from, without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from mibench.errors import UserError
from mibench.storage.fetching import Download

PACKAGE = Path(__file__).parent.parent


def spec_of(module: str) -> ModuleSpec | None:
    """Return where Python would find a module; None where it would not. Nothing is imported.

    ``importlib.util.find_spec`` imports the packages that hold a module. A name that stands in a file from someone else
    could then choose what is run.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    loaded: ModuleSpec | None = getattr(sys.modules.get(module), "__spec__", None)
    if loaded is not None:
        return loaded  # such as os.path, which is another module
    spec, path, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if (known := getattr(sys.modules.get(name), "__spec__", None)) is not None:
            spec = known
        else:
            finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
            found = (find(name, path) for find in finders if find is not None)
            spec = next((one for one in found if one is not None), None)
        if spec is None:
            return None
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and name != module:
            return None
    return spec


def source_of(module: str) -> Path:
    """Return the source file of a module, which is not imported.

    Raises:
        UserError: If there is none.
    """
    if module.startswith("mibench.") and all(part.isidentifier() for part in module.split(".")):
        path = PACKAGE.joinpath(*module.split(".")[1:])
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = spec_of(module)
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
