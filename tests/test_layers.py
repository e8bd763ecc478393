"""The house rules: an import points to a lower rank or stays inside one folder; only io knows file formats."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import anatogen

ROOT = Path(anatogen.__file__).parent
RANKS = {
    "errors": 0, "labels": 0, "volume": 0, "runtime": 0,
    "io": 1, "conditioning": 1, "diffusion": 1, "networks": 1,
    "data": 2, "model": 2,
    "training": 3,
    "generation": 4,
    "evaluation": 5, "baselines": 5, "interop": 5,
    "cli": 6, "studio": 6,
}  # fmt: skip
TOP = {"__init__", "__main__"}
MODULES = sorted(path for path in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The folder, or the module beside __init__.py, that `path` belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> set[tuple[str, int]]:
    """(room, line) of every import of our own code, also those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [
                f"{node.module}.{alias.name}" if node.module == "anatogen" else node.module for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = str(name).split(".")
            if parts[0] == "anatogen" and len(parts) > 1 and parts[1] != "__version__":
                found.add((parts[1], node.lineno))
    return found


def test_every_room_has_a_rank() -> None:
    assert {room(path) for path in MODULES} <= RANKS.keys() | TOP


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_up_the_page(path: Path) -> None:
    here = room(path)
    if here in TOP:
        return
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {there}"
        for there, line in imported_rooms(path)
        if there != here and RANKS[there] >= RANKS[here] and not RANKS[there] == RANKS[here] == 0
    ]
    assert not wrong


FORMAT_LIBRARIES = {"nibabel", "pydicom", "highdicom", "PIL", "nrrd", "tifffile"}
# volume.py uses nibabel's arithmetic of orientations; the brain template reads the one file that nilearn ships.
ALLOWED = {"volume.py", "data/sources/brain_template.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_io_knows_file_formats(path: Path) -> None:
    if room(path) == "io" or path.relative_to(ROOT).as_posix() in ALLOWED:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    roots |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not roots & FORMAT_LIBRARIES


def test_metrics_take_arrays() -> None:
    metrics = "distances faithfulness membership neighbours privacy proportions realism surface tally utility variation"
    for name in metrics.split():
        rooms = {there for there, _ in imported_rooms(ROOT / "evaluation" / f"{name}.py")}
        assert rooms <= {"labels", "errors", "runtime", "diffusion", "evaluation"}, name


def test_randomness_is_handed_in() -> None:
    """No function draws from global state, but for a network's initial weights."""
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert "np.random.rand" not in line and "np.random.seed" not in line, f"{path}:{number}"
            if "torch.randn(" in line or "torch.rand(" in line or "torch.randint(" in line:
                assert "generator" in line, f"{path}:{number} draws without a generator"
