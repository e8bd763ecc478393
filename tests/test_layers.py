"""The rules of the house, each a function that lists its violations, and each shown a file that breaks it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import anatogen

ROOT = Path(anatogen.__file__).parent
RANKS = {
    "errors": 0, "labels": 0, "volume": 0, "device": 0, "seeds": 0, "files": 0, "progress": 0, "distributed": 0, "settings": 0,
    "io": 1, "conditioning": 1, "diffusion": 1, "networks": 1, "phantoms": 1, "naming": 1,
    "data": 2, "metrics": 2, "sampling": 2,
    "model": 3,
    "judges": 4, "training": 4,
    "baselines": 5,
    "generation": 6,
    "reporting": 7,
    "interop": 8, "evaluation": 8, "check": 8,
    "workflows": 9,
    "cli": 10, "studio": 10,
}  # fmt: skip
TOP = {"__init__", "__main__"}
FORMAT_LIBRARIES = {"nibabel", "pydicom", "highdicom", "PIL", "nrrd", "tifffile"}
# volume.py uses nibabel's arithmetic of orientations; the brain template reads the one file that nilearn ships.
KNOWS_FORMATS = {"volume.py", "data/sources/brain_template.py"}
GLOBAL_DRAWS = {"torch.randn", "torch.rand", "torch.randint", "torch.randperm", "torch.normal", "torch.multinomial"}


def modules(root: Path) -> Iterator[tuple[Path, str, ast.Module]]:
    """(path below root, room, syntax tree) of every module."""
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        yield inside, inside.parts[0].removesuffix(".py"), parsed(path.read_text(encoding="utf-8"))


parsed = cache(ast.parse)  # once for all rules


@cache
def imports(tree: ast.Module) -> list[tuple[str, int]]:
    """(dotted name, line) of every import, also those inside functions; a relative one starts with a dot."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += ((f"{module}.{a.name}" if module == "anatogen" else module, node.lineno) for a in node.names)
        elif isinstance(node, ast.Import):
            found += ((alias.name, node.lineno) for alias in node.names)
    return found


def our_imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(room, line) of every import of our own code."""
    for name, line in imports(tree):
        parts = name.split(".")
        if parts[0] == "anatogen" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1], line


def every_room_has_a_rank(root: Path) -> list[str]:
    return [str(path) for path, room, _ in modules(root) if room not in RANKS.keys() | TOP]


def imports_point_up_the_page(root: Path) -> list[str]:
    """To a lower rank, or inside one room; the single modules of rank 0 may use each other."""
    return [
        f"{path}:{line} imports {there}"
        for path, room, tree in modules(root)
        if room in RANKS
        for there, line in our_imports(tree)
        if there != room and RANKS[there] >= RANKS[room] and not RANKS[there] == RANKS[room] == 0
    ]


def imports_are_absolute(root: Path) -> list[str]:
    return [f"{path}:{line}" for path, _, tree in modules(root) for name, line in imports(tree) if name[:1] == "."]


def no_circles(root: Path) -> list[str]:
    """Modules that import each other when they are loaded (imports inside functions break a circle)."""
    names = {}
    for path, _, tree in modules(root):
        parts = path.with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = tree
    edges: dict[str, set[str]] = {}
    for name, tree in names.items():
        wanted = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anatogen"):
                module = (node.module or "").removeprefix("anatogen").removeprefix(".")
                below = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names} & names.keys()
                wanted |= below or ({module} & names.keys())
        edges[name] = wanted - {name, ""}
    found, done = [], set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            found.append(" -> ".join((*way[way.index(name) :], name)))
        elif name not in done:
            for other in sorted(edges[name]):
                walk(other, (*way, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())
    return found


def only_io_knows_file_formats(root: Path) -> list[str]:
    return [
        f"{path}:{line} imports {name}"
        for path, room, tree in modules(root)
        if room != "io" and path.as_posix() not in KNOWS_FORMATS
        for name, line in imports(tree)
        if name.split(".")[0] in FORMAT_LIBRARIES
    ]


def only_distributed_knows_process_groups(root: Path) -> list[str]:
    return [
        f"{path}:{line}"
        for path, room, tree in modules(root)
        if room != "distributed"
        for name, line in imports(tree)
        if name.startswith("torch.distributed")
    ]


def metrics_take_arrays(root: Path) -> list[str]:
    """A metric imports nothing of ours but errors and other metrics."""
    return [
        f"{path}:{line} imports {there}"
        for path, room, tree in modules(root)
        if room == "metrics"
        for there, line in our_imports(tree)
        if there not in {"errors", "metrics"}
    ]


def phantoms_are_arrays(root: Path) -> list[str]:
    return [
        f"{path}:{line} imports {there}"
        for path, room, tree in modules(root)
        if room == "phantoms"
        for there, line in our_imports(tree)
        if there not in {"errors", "labels", "volume", "seeds", "phantoms"}
    ]


def randomness_is_handed_in(root: Path) -> list[str]:
    """No draw from global state: NumPy's legacy functions, or torch's without `generator=`."""
    found = []
    for path, _, tree in modules(root):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            legacy = called.startswith("np.random.") and "(" not in called and called != "np.random.default_rng"
            unseeded = called == "np.random.default_rng" and not node.args and not node.keywords
            without = called in GLOBAL_DRAWS and "generator" not in {k.arg for k in node.keywords}
            if legacy or unseeded or without:
                found.append(f"{path}:{node.lineno} {called}")
    return found


def pickles_are_checked(root: Path) -> list[str]:
    """torch.load says weights_only=True; pickle itself loads nothing."""
    found = []
    for path, _, tree in modules(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"pickle.load", "pickle.loads"}:
                found.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                said = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if said.get("weights_only") != "True":
                    found.append(f"{path}:{node.lineno}")
    return found


def figures_have_no_global_state(root: Path) -> list[str]:
    return [
        f"{path}:{line}"
        for path, _, tree in modules(root)
        for name, line in imports(tree)
        if name.startswith("matplotlib.pyplot")
    ]


RULES: dict[Callable[[Path], list[str]], tuple[str, str]] = {
    every_room_has_a_rank: ("attic/chest.py", ""),
    imports_point_up_the_page: ("data/probe.py", "def f():\n    from anatogen.training import fit"),
    imports_are_absolute: ("data/probe.py", "from .store import PreparedDataset"),
    no_circles: ("data/probe.py", "from anatogen.data import other"),
    only_io_knows_file_formats: ("data/probe.py", "import nibabel.affines"),
    only_distributed_knows_process_groups: ("training/probe.py", "import torch.distributed as dist"),
    metrics_take_arrays: ("metrics/probe.py", "from anatogen.labels import LabelSchema"),
    phantoms_are_arrays: ("phantoms/probe.py", "from anatogen.io.nifti import read_nifti"),
    randomness_is_handed_in: ("data/probe.py", "import torch\nx = torch.randn(3)"),
    pickles_are_checked: ("data/probe.py", "import torch\nx = torch.load('a.pt')"),
    figures_have_no_global_state: ("reporting/probe.py", "from matplotlib.pyplot import plot"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_has_teeth(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    name, text = RULES[rule]
    planted = tmp_path / name
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    if rule is no_circles:
        (tmp_path / "data" / "other.py").write_text("from anatogen.data.probe import anything")
    assert rule(tmp_path)


def test_no_room_holds_more_than_a_fifth() -> None:
    lines: dict[str, int] = {}
    for path, room, _ in modules(ROOT):
        lines[room] = lines.get(room, 0) + len((ROOT / path).read_text(encoding="utf-8").splitlines())
    largest = max(lines, key=lambda room: lines[room])
    assert lines[largest] <= sum(lines.values()) / 5, f"{largest}: {lines[largest]} of {sum(lines.values())} lines"
