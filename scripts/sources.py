"""What the pages say of the options of a class, read without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mibench.planning.sources import lineage, parsed


def classes_in(file: Path) -> list[str]:
    return [node.name for node in parsed(file).body if isinstance(node, ast.ClassDef)]


def sentences_of(file: Path, name: str) -> dict[str, str]:
    """Return the docstring of every option that a class has as a field, inherited ones first."""
    sentences: dict[str, str] = {}
    options = False
    for node in lineage(file, name):
        options = options or node.name == "Options"
        if options and not any(isinstance(one, ast.FunctionDef) and one.name == "__init__" for one in node.body):
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
        name = statement.target.id.rstrip("_")  # as the configuration writes it
        sentence = inherited.get(name, "")
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            sentence = " ".join(below.value.value.split())
        yield name, sentence
