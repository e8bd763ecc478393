"""What the commands share: error messages, exit codes, help texts of options."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from anatogen import __version__
from anatogen.distributed import is_first_process
from anatogen.errors import AnatogenError
from anatogen.progress import Bars, watched_by

if TYPE_CHECKING:
    from anatogen.generation.sample_set import SampleSet
    from anatogen.workflows.sample import SampleResult

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap `command`: show progress, print user errors in one line, and exit with the code of their kind.

    Of several processes of one training the first one shows the progress, and the one that raised an error prints it.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with watched_by(Bars() if is_first_process() else None):
                return command(*args, **kwargs)
        except AnatogenError as error:
            if not error.told:
                print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(0) from None

    return run


def command_line() -> str:
    """The command as typed, with absolute paths reduced to their last part, for documents."""
    from anatogen.settings import without_paths  # loads pydantic; --help has to be fast

    return shlex.join(["anatogen", *without_paths(sys.argv[1:])])


def at_a_glance(result: SampleResult) -> str:
    """The location of a sample set's overview, to append to its line."""
    return f", overview in {result.overview}" if result.overview else ""


def images_of(samples: SampleSet) -> str:
    """Where a sample set is, the number of its images, and of which shard they are."""
    shard = "" if samples.shard.count == 1 else f" of shard {samples.shard.index + 1}/{samples.shard.count}"
    return f"{samples.folder}: {len(samples.entries)} images{shard}"


def print_samples(result: SampleResult, more: str = "", *, dataset: str) -> None:
    """Print what was made, and, where the set is complete, the command that evaluates it against `dataset`."""
    samples = result.samples
    for note in result.notes:
        print(note)
    print(f"{images_of(samples)}{more}{at_a_glance(result)}")
    if samples.shard.count == 1:
        print(f"Next: anatogen evaluate {samples.folder} --dataset {dataset} --out REPORT")


def as_tuple(names: list[str] | None) -> tuple[str, ...] | None:
    """`names` as a tuple, for requests."""
    return None if names is None else tuple(names)


def split_names(text: str | None) -> list[str] | None:
    """The names in "a,b"; None for None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"anatogen {__version__}")
        raise typer.Exit


version_option: bool = typer.Option(
    False, "--version", callback=_print_version, is_eager=True, help="Print the version."
)
shard_option: str = typer.Option(
    "1/1", metavar="I/N", help="Make part I of N of the images into the same folder, for job arrays: 3/200."
)
device_option: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 or mps.")
solver_option: str | None = typer.Option(None, help="dpmpp_2m, ddim, ddpm or heun. [default: the run's]")
steps_option: int | None = typer.Option(None, min=1, max=1000, help="Solver steps. [default: the run's]")
tile_option: str | None = typer.Option(
    None, metavar="SIZE", help="See an image in overlapping tiles of that size, with the memory of one: 64, 64x96x96."
)
eta_option: float | None = typer.Option(
    None, min=0, max=1, help="Noise added while solving, from 0 (deterministic) to 1."
)
guidance_option: float | None = typer.Option(
    None,
    min=0,
    max=10,
    metavar="W",
    help="How much more closely than in the data the label map is followed (classifier-free guidance); 1 is off. On "
    "slices of the hippocampus 2, with --guidance-interval 0.22,0.74, gained 0.02 of the 0.03 Dice that real images "
    "are ahead, at no loss of realism and 1.5 times the calls of the network; thin parts gained nothing, and in head "
    "and neck CT some organs gained while others lost. Needs a run with "
    "mask ablation. See docs/guidance.md. [default: the run's]",
)
guidance_interval_option: str | None = typer.Option(
    None,
    metavar="LOW,HIGH",
    help="Guide only where the share of noise, sigma / (alpha + sigma), is above LOW and up to HIGH, both in 0 "
    "(image) to 1 (noise). Saves calls, and spares the texture from large weights. [default: 0,1]",
)
guidance_classes_option: str | None = typer.Option(
    None, metavar="A,B", help="Guide by these classes alone. [default: all that are given]"
)
attribute_guidance_option: float | None = typer.Option(
    None, min=0, max=10, metavar="W", help="The same for the attributes; 1 is off. [default: the run's]"
)
attribute_option: list[str] = typer.Option(
    [],
    "--attribute",
    metavar="NAME=VALUE",
    help="Value of an attribute for all images: sequence=T2, or sequence=unknown. May be repeated. [default: that of "
    "the label map's own case]",
)
edit_option: list[str] = typer.Option(
    ...,
    "--edit",
    metavar="EDIT",
    help='Edits in order, "grow liver 5mm; deform 0.3"; a range as 2..6mm is drawn by seed. Several --edit take turns. '
    "On slices, mm are in the plane. Grammar: the documentation's page on editing.",
)
optional_edit_option: list[str] = typer.Option(
    [],
    "--edit",
    metavar="EDIT",
    help='Edit the label maps first: "grow liver 5mm; deform 0.3". Several --edit take turns. See anatogen edit.',
)
implausible_option: str = typer.Option(
    "warn",
    metavar="WHAT",
    help="Edits outside the limits learned from the training patients' label maps: warn (keep and record them), refuse "
    "(draw again, up to 10 times, then leave out) or keep (do not check).",
)
