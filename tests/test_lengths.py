"""No function over 60 lines, no call with more than 8 parameters; today's exceptions are listed and can only become
fewer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import anatogen

ROOT = Path(anatogen.__file__).parent
MOST_LINES, MOST_PARAMETERS = 60, 8

# The training loop is read from top to bottom.
LONG_BY_DESIGN = {"training/fit.py:fit"}
# Functions that still break a rule. Remove an entry once it is fixed; do not add any.
TOO_LONG: dict[str, int] = {}
TOO_MANY_PARAMETERS: dict[str, int] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(root: Path) -> Iterator[tuple[str, Function]]:
    """(path:qualified name, node) of every function below `root`."""
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        for name, node in _inside(ast.parse(path.read_text(encoding="utf-8")), ""):
            yield f"{place}:{name}", node


def _inside(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _inside(child, f"{prefix}{child.name}." if scope else prefix)


def lines_of(function: Function) -> int:
    """Lines of the body without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def parameters_of(function: Function) -> int:
    """Parameters that a caller gives, so without self and cls."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def too_long(root: Path) -> dict[str, int]:
    """The functions over MOST_LINES lines."""
    lengths = {name: lines_of(node) for name, node in functions(root)}
    return {name: n for name, n in lengths.items() if n > MOST_LINES and name not in LONG_BY_DESIGN}


def too_many_parameters(root: Path) -> dict[str, int]:
    """The functions with more than MOST_PARAMETERS parameters, but for the commands, whose parameters are their
    options.
    """
    counts = {name: parameters_of(node) for name, node in functions(root) if not name.startswith("cli/")}
    return {name: n for name, n in counts.items() if n > MOST_PARAMETERS}


def problems(found: dict[str, int], listed: dict[str, int]) -> list[str]:
    """What breaks the rule and is not listed, is worse than listed, or is listed and keeps the rule."""
    worse = [f"{name}: {n} (listed: {listed.get(name)})" for name, n in found.items() if n > listed.get(name, 0)]
    return worse + [f"{name}: keeps the rule now, remove it from the list" for name in listed if name not in found]


@pytest.mark.parametrize(
    ("found", "listed"), [(too_long, TOO_LONG), (too_many_parameters, TOO_MANY_PARAMETERS)], ids=["lines", "parameters"]
)
def test_functions_stay_short(found, listed) -> None:
    assert problems(found(ROOT), listed) == []


def planted(root: Path, place: str, text: str) -> Path:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text, encoding="utf-8")
    return root


def test_a_long_function_is_found(tmp_path: Path) -> None:
    def source(lines: int) -> str:
        rest = "        x = 1\n" * lines
        return f'class A:\n    def b(\n        self,\n    ):\n        """Not\n\n        counted."""\n{rest}'

    assert too_long(planted(tmp_path, "io/a.py", source(60))) == {}
    assert too_long(planted(tmp_path, "io/a.py", source(61))) == {"io/a.py:A.b": 61}
    assert too_long(planted(tmp_path, "training/fit.py", "def fit():\n" + "    x = 1\n" * 61)) == {"io/a.py:A.b": 61}


def test_many_parameters_are_found(tmp_path: Path) -> None:
    eight = "a, b, /, c, d, *, e, f, g, h"
    assert too_many_parameters(planted(tmp_path, "io/a.py", f"class A:\n    def b(self, {eight}): ...\n")) == {}
    assert too_many_parameters(planted(tmp_path, "cli/a.py", f"def b({eight}, i): ...\n")) == {}
    assert too_many_parameters(planted(tmp_path, "io/a.py", f"async def b({eight}, i=1, **more): ...\n")) == {
        "io/a.py:b": 9
    }


def test_the_list_can_only_shrink() -> None:
    assert problems({"a": 70}, {"a": 70}) == []
    assert problems({"a": 71}, {"a": 70}) and problems({"b": 61}, {}) and problems({}, {"a": 70})
    assert problems({"a": 69}, {"a": 70}) == []
