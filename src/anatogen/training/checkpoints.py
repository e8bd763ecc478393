"""Checkpoints: the named list of everything that a training saves and restores, as safetensors and JSON.

A checkpoint is NUMBER.safetensors with all tensors and NUMBER.json with the rest. The JSON holds the digest of the
tensors and of itself and is written last, so a checkpoint is either complete or ignored. No code is ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from anatogen.distributed import current_group
from anatogen.errors import ModelError, SettingsError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors

_log = logging.getLogger(__name__)
_FORMAT = 1


class Part(Protocol):
    """An object whose state is saved, like a torch module. `to_json` lists the types that its state may contain."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state to save."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restore `state`."""
        ...


class Checkpoints:
    """The checkpoints of a training in one folder.

    Args:
        folder: Created by the first save.
        parts: Everything that is saved and restored, by name.
        recipe: What must match for a checkpoint to be restored, each with its name in error messages.
        keep: Number of latest checkpoints to keep.
        before: Called with the name of each file operation before it runs (for tests).
    """

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, Part],
        *,
        recipe: Mapping[str, str] | None = None,
        keep: int = 2,
        before: Callable[[str], None] = lambda operation: None,
    ) -> None:
        self.folder, self.parts, self.keep = folder, dict(parts), keep
        self._recipe, self._before = dict(recipe or {}), before

    def beside(self, folder: Path) -> Checkpoints:
        """The same parts, of which one checkpoint is kept in another folder."""
        return Checkpoints(folder, self.parts, recipe=self._recipe, keep=1, before=self._before)

    def save(self, step: int) -> None:
        """Write a checkpoint of `step`, flush it to disk, then remove the oldest ones beyond `keep`.

        Raises:
            OutputError: The disk is full or not writable; earlier checkpoints stay.
        """
        tensors: dict[str, Tensor] = {}
        parts = {name: to_json(part.state_dict(), name, tensors) for name, part in self.parts.items()}
        names = _names(step)
        self._before("write tensors")
        with writing(self.folder / names[0]) as path:
            write_tensors(path, tensors)
            digest = _digest(path)
            self._before("flush tensors")
            _flush(path)
            self._before("rename tensors")
        self._before("flush folder")
        _flush(self.folder)
        document = {"format": _FORMAT, "step": step, "tensors": digest, "recipe": self._recipe, "parts": parts}
        self._before("write json")
        with writing(self.folder / names[1]) as path:
            text = json.dumps({"digest": _digest_of_json(document), **document}, ensure_ascii=False)
            path.write_text(text, encoding="utf-8")
            self._before("flush json")
            _flush(path)
            self._before("rename json")
        self._before("flush folder again")
        _flush(self.folder)
        self._remove_old()

    def restore(self) -> int | None:
        """Restore the parts from the latest intact checkpoint; a damaged one is skipped with a warning.

        The first process of a group reads it for all.

        Returns:
            Its step, or None if there are no checkpoints.

        Raises:
            ModelError: All checkpoints are damaged, or one is of a newer version.
            SettingsError: The recipe differs.
        """
        found = current_group().first(self._latest)
        if found is None:
            return None
        document, tensors = found
        self._check(document["recipe"])
        for name, state in document["parts"].items():
            if name in self.parts:  # other processes have no hooks
                self.parts[name].load_state_dict(from_json(state, tensors))
        return int(document["step"])

    def _latest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The document and the tensors of the latest intact checkpoint."""
        files = self._files()
        for file in reversed(files):
            try:
                document, tensors = self._read(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s: is damaged (%s); using the previous checkpoint", file, error)
                continue
            self._check(document["recipe"])
            if missing := set(self.parts) ^ set(document["parts"]):
                raise ModelError(
                    f"does not hold the parts of this training (they differ in {', '.join(sorted(missing))})", path=file
                )
            return document, tensors
        if files:
            raise ModelError("no checkpoint is intact", path=self.folder, hint="Train into another folder")
        return None

    def last(self) -> int | None:
        """The step of the latest checkpoint by its file name, or None."""
        files = self._files()
        return int(files[-1].stem) if files else None

    def clear(self) -> None:
        """Remove all checkpoints, and the folder if it is empty then."""
        for file in self._files():
            self._remove(file)
        self._remove_strays()
        with suppress(OSError):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return checkpoint_files(self.folder)

    def _read(self, file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] > _FORMAT:
            raise ModelError(
                f"was written by a newer version (format {document['format']}, this one reads {_FORMAT})",
                path=file,
                hint="Update anatogen",
            )
        digest = document.pop("digest")
        if digest != _digest_of_json(document):
            raise ValueError("its digest does not match")
        tensors = file.with_suffix(".safetensors")
        if _digest(tensors) != document["tensors"]:
            raise ValueError("the digest of its tensors does not match")
        return document, read_tensors(tensors)

    def _check(self, recipe: Mapping[str, str]) -> None:
        for name in sorted(set(recipe) | set(self._recipe)):
            if recipe.get(name) != self._recipe.get(name):
                raise SettingsError(
                    f"was started with different {name}",
                    path=self.folder.parent,
                    hint=f"Resume with the original {name}, or train into another folder",
                )

    def _remove_old(self) -> None:
        for file in self._files()[: -self.keep]:
            self._remove(file)
        self._remove_strays()

    def _remove(self, file: Path) -> None:
        # JSON first: tensors without it are ignored.
        for gone in (file, file.with_suffix(".safetensors")):
            self._before(f"remove {gone.suffix}")
            gone.unlink(missing_ok=True)

    def _remove_strays(self) -> None:
        for tensors in self.folder.glob("*.safetensors"):
            if tensors.stem.isdecimal() and not tensors.with_suffix(".json").exists():
                self._before("remove stray")
                tensors.unlink(missing_ok=True)


def checkpoint_files(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints in `folder`, the latest last; without half-written ones of a killed process."""
    return sorted(file for file in folder.glob("*.json") if file.stem.isdecimal())


def to_json(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Convert a state to JSON and collect its tensors.

    Args:
        value: None, bool, int, float, str, tensors, NumPy arrays, NumPy scalars (converted to Python's), and lists,
            tuples and dicts of these.
        place: The path of `value` in the state; names its tensors.
        tensors: Receives the tensors.

    Raises:
        TypeError: Another type, with its place.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return to_json(value.item(), place, tensors)
    if isinstance(value, np.ndarray):
        tensors[place] = torch.from_numpy(np.ascontiguousarray(value))
        return {"$array": place}
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"$tensor": place}
    if isinstance(value, list | tuple):
        items = [to_json(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: to_json(item, f"{place}/{key}", tensors) for key, item in value.items()}
        pairs = [
            [to_json(key, place, tensors), to_json(item, f"{place}/{key}", tensors)] for key, item in value.items()
        ]
        return {"$pairs": pairs}
    raise TypeError(f"{place}: a {type(value).__name__} cannot be saved in a checkpoint")


def from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$array": place}:
            return tensors[place].numpy()
        case {"$tensor": place}:
            return tensors[place]
        case {"$tuple": items}:
            return tuple(from_json(item, tensors) for item in items)
        case {"$pairs": pairs}:
            return {from_json(key, tensors): from_json(item, tensors) for key, item in pairs}
    return {key: from_json(item, tensors) for key, item in value.items()}


def _names(step: int) -> tuple[str, str]:
    return f"{step:09d}.safetensors", f"{step:09d}.json"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_json(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Flush a file, or a folder's directory entries, to disk."""
    if path.is_dir():
        with suppress(OSError):  # Windows cannot open folders, and some network file systems cannot flush them
            _flush_handle(os.open(path, os.O_RDONLY))
    else:
        _flush_handle(os.open(path, os.O_RDWR))


def _flush_handle(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
