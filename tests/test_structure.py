"""The floors: guard/ below export/ below tools/, and lean."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "guard": {"export", "tools", "tests"},
    "export": {"tools", "tests"},
    "tools": {"tests"},
}
FILES = [
    path.relative_to(ROOT) for floor in FORBIDDEN for path in sorted((ROOT / floor).rglob("*.py"))
]
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def imported(path: Path) -> Iterator[str]:
    """The first words of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # relative ones stay inside
            yield (node.module or "").partition(".")[0]


def test_there_are_files_to_look_at() -> None:
    assert {path.parts[0] for path in FILES} == set(FORBIDDEN)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_floor_imports_nothing_of_those_above_it(path: Path) -> None:
    assert not FORBIDDEN[path.parts[0]] & set(imported(ROOT / path))


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    source = path.read_text(encoding="utf-8")
    kept: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            kept.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            kept.difference_update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(kept)


def test_guard_and_export_stay_readable_in_an_evening() -> None:
    files = [ROOT / path for path in FILES if path.parts[0] in ("guard", "export")]
    total = {path.relative_to(ROOT): code_lines(path) for path in files}
    assert sum(total.values()) < 5600
    assert max(total.values()) < 180, max(total, key=lambda path: total[path])


@pytest.mark.parametrize("name", ["cli", "words", "calling"])
def test_the_command_line_holds_no_heavy_import(name: str) -> None:
    """Those at the top of tools/cli.py are paid for by every --help."""
    tree = ast.parse((ROOT / f"tools/{name}.py").read_text(encoding="utf-8"))
    at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in at_top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in at_top if isinstance(node, ast.ImportFrom)}
    heavy = {"torch", "numpy", "cv2", "onnx", "onnxruntime", "matplotlib", "guard", "fire"}
    assert not heavy & {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", ["guard", "export", "tools"])
def test_setup_names_every_package(package: str) -> None:
    """A folder of modules that setup.py leaves out is missing from an installed copy."""
    listed = (ROOT / "setup.py").read_text(encoding="utf-8")
    folders = {path.parent for path in (ROOT / package).rglob("__init__.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    missing = {name for name in names if f'"{name}"' not in listed}
    assert "find_packages" in listed or not missing
