"""The house's rules that a machine can hold: layers, names, no stray output."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "deepscan").rglob("*.py"))


def test_no_room_reaches_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports() == 0


# Who may import the networks' libraries, at the top of a file or inside a function.
NETWORKS = {"torch", "torchvision", "open_clip", "facenet_pytorch"}
MAY_USE_NETWORKS = {
    "model",
    "faces",
    "training",
    "benchmark/efficiency.py",  # times training steps
    "benchmark/predict.py",  # runs detectors on prepared crops
    "benchmark/runs.py",  # makes the crops on which training is timed
    "verification/doctor.py",  # checks torch itself
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_networks_libraries_are_imported_where_networks_are(path: Path) -> None:
    inner = path.relative_to(ROOT / "deepscan")
    if {inner.parts[0], inner.as_posix()} & MAY_USE_NETWORKS:
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = {str(node.module).split(".")[0]}
        else:
            continue
        assert not imported & NETWORKS, f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_say_what_things_are(path: Path) -> None:
    assert not re.match(r"utils|helpers|misc|base_|.*manager", path.stem)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            assert not re.search(r"(?i)util|helper|manager|data_dict", node.name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_error_is_swallowed_unseen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            last = ast.unparse(node.body[-1])  # raised, or handed on to who waits for the result
            assert not broad or last.startswith("raise") or ".set_exception(" in last
