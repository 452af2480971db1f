"""Arrows point down: the roof may use every room, a room only the ground floor, the ground floor nobody."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "dialogue": set(),
    "exporters": {"dialogue"},
    "ml_backend": {"dialogue"},
    "analysis": {"dialogue"},
    "aku": {"dialogue", "exporters", "ml_backend", "analysis"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        upward = imports(path) & (set(ALLOWED) - ALLOWED[room] - {room})
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}"


@pytest.mark.parametrize("module", ["dialogue", "aku.cli"])
def test_heavy_libraries_are_not_imported_at_start(module: str) -> None:
    heavy = "torch transformers sklearn pandas matplotlib datasets trl label_studio_sdk".split()
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == ""
