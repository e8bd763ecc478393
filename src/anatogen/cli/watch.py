"""anatogen watch"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import guarded

if TYPE_CHECKING:
    from rich.console import Group

    from anatogen.workflows.watch import TrainingView

_LEVELS = "▁▂▃▄▅▆▇█"
_COLUMNS = 48


@guarded
def watch(
    run: Path = typer.Argument(help="The folder that anatogen train writes to."),
    once: bool = typer.Option(False, "--once", help="Show the present state and exit."),
    every: float = typer.Option(2.0, min=0.2, help="Seconds between two looks."),
) -> None:
    """Watch a training from another terminal: progress, loss, and the Dice of its previews.

    It only reads what the training writes, and ends with it. Pictures are in training.html in the same folder.

    Example: anatogen watch runs/hippocampus
    """
    from rich.console import Console
    from rich.live import Live

    from anatogen.workflows.watch import view_of
    from anatogen.workflows.watch import watch as views

    if once:
        Console().print(_shown(view_of(run)))
        return
    with Live(refresh_per_second=4) as live:
        for view in views(run, every=every):
            live.update(_shown(view), refresh=True)


def _shown(view: TrainingView) -> Group:
    from rich.console import Group
    from rich.text import Text

    from anatogen.progress import format_duration

    lines = [f"{view.run}: {view.status}, step {view.step}"]
    if view.share is not None and view.seconds is not None:
        lines[0] += f", {100 * view.share:.0f} % in {format_duration(view.seconds)}"
    if view.left is not None and view.status == "training":
        lines[0] += f", {format_duration(view.left)} left"
    if view.images_per_s is not None and view.status == "training":
        lines[0] += f", {view.images_per_s:.1f} images/s"
    if view.loss:
        lines.append(f"loss  {sparkline([value for _, value in view.loss])}  {view.loss[-1][1]:.4f}")
    if view.dice:
        ceiling = f" (real images {view.ceiling:.3f})" if view.ceiling is not None else ""
        lines.append(f"Dice  {sparkline([value for _, value in view.dice])}  {view.dice[-1][1]:.3f}{ceiling}")
        lines.append("      " + ", ".join(f"{name} {value:.3f}" for name, value in view.dice_of_classes.items()))
    if view.status == "stopped":
        lines.append("No process is training there; anatogen train --resume continues it.")
    if view.preview is not None:
        lines.append(f"previews: {view.run / 'training.html'}")
    return Group(*(Text(line) for line in lines))


def sparkline(values: Sequence[float], columns: int = _COLUMNS) -> str:
    """A curve in one line of text, from the lowest of `values` to the highest; at most `columns` characters."""
    size = -(-len(values) // columns)
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), max(1, size))]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = high - low
    return "".join(_LEVELS[min(7, int(8 * (m - low) / span))] if span > 0 else _LEVELS[3] for m in means)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(watch)
