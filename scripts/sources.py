"""Classes read as text: their docstrings and the sentences of their options, without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def classes_in(file: Path) -> list[str]:
    return [node.name for node in parsed(file).body if isinstance(node, ast.ClassDef)]


def class_in(file: Path, name: str) -> tuple[Path, ast.ClassDef] | None:
    """Return where a class that ``file`` defines or imports from mibench is defined; None for any other."""
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return file, node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mibench"):
            for word in node.names:
                if (word.asname or word.name) == name:
                    return class_in(file_of(str(node.module)), word.name)
    return None


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def sentences_of(file: Path, name: str) -> dict[str, str]:
    """Return the docstring of every option that a class has as a dataclass field, inherited ones first."""
    found = class_in(file, name)
    if found is None:
        return {}
    file, node = found
    sentences: dict[str, str] = {}
    for base in reversed(node.bases):
        base = base.value if isinstance(base, ast.Subscript) else base
        sentences |= sentences_of(file, base.id) if isinstance(base, ast.Name) else {}
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        sentences |= dict(_own_sentences(node.body, sentences))
    return sentences


def _own_sentences(body: Sequence[ast.stmt], inherited: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class body; one that only has another default keeps the sentence that it inherits."""
    for statement, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        value = ast.unparse(statement.value) if statement.value else ""
        if "ClassVar" in ast.unparse(statement.annotation) or "init=False" in value:
            continue
        name, sentence = statement.target.id, inherited.get(statement.target.id, "")
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            sentence = " ".join(below.value.value.split())
        yield name, sentence


def summary_of(file: Path, name: str) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    found = class_in(file, name)
    text = (ast.get_docstring(found[1]) or "") if found else ""
    return " ".join(text.partition("\n\n")[0].split())
