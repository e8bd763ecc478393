"""What the commands share: errors in one line, exit codes, option texts."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from anatogen import __version__
from anatogen.errors import AnatogenError
from anatogen.progress import Bars, watched_by

if TYPE_CHECKING:
    from anatogen.workflows.sample import SampleResult

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """`command` with its progress shown, what a user can fix printed as one line, and the exit code of its kind."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with watched_by(Bars()):
                return command(*args, **kwargs)
        except AnatogenError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(0) from None

    return run


def command_line() -> str:
    """The command as it was typed, with absolute paths cut to their last part: documents travel."""
    from anatogen.settings import without_paths  # which loads pydantic, and --help is to be quick

    return shlex.join(["anatogen", *without_paths(sys.argv[1:])])


def at_a_glance(result: SampleResult) -> str:
    """Where the overview of a sample set lies, to print behind its line."""
    return f", at a glance in {result.overview}" if result.overview else ""


def as_tuple(names: list[str] | None) -> tuple[str, ...] | None:
    """`names` as requests hold them."""
    return None if names is None else tuple(names)


def split_names(text: str | None) -> list[str] | None:
    """The names in "a,b", or None where nothing was given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"anatogen {__version__}")
        raise typer.Exit


version_option: bool = typer.Option(
    False, "--version", callback=_print_version, is_eager=True, help="Print the version."
)
device_option: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 or mps.")
solver_option: str | None = typer.Option(None, help="dpmpp_2m, ddim, ddpm or heun. [default: the run's]")
steps_option: int | None = typer.Option(None, min=1, max=1000, help="Solver steps. [default: the run's]")
eta_option: float | None = typer.Option(None, min=0, max=1, help="Noise put back while solving: 0 none, 1 full.")
