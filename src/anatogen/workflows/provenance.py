"""Where a result comes from: run, command, version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatogen import __version__

if TYPE_CHECKING:
    from anatogen.generation.engine import Generator


def sampling_about(generator: Generator, run: Path, request: dict[str, Any], command: str) -> dict[str, Any]:
    """What a sample set says of its making."""
    return {
        "run": str(run.resolve()),
        "channels": generator.about.channels,
        "request": request,
        "about_model": generator.about.record(),
        "command": command,
        "version": __version__,
    }
