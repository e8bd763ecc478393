"""Checkpoints: the one named list of what a training saves and restores, in safetensors and JSON.

A checkpoint is NUMBER.safetensors with every tensor and NUMBER.json with everything else. The JSON holds the digest of the
tensors and of itself and is written last, so that a checkpoint is whole or does not count. No code is ever loaded.
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

from anatogen.errors import ModelError, SettingsError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors

_log = logging.getLogger(__name__)
_FORMAT = 1


class Part(Protocol):
    """Something whose state is saved, as torch's modules are. Its state: see `to_json`."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take `state` over."""
        ...


class Checkpoints:
    """The checkpoints in `folder`, of the `parts` by their names.

    Args:
        folder: Made by the first save.
        parts: All that is saved and restored.
        recipe: What must be the same for a checkpoint to be restored, by what it is called in words.
        keep: How many of the last ones are kept.
        before: Called with a word before each operation on files (for tests).
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

    def save(self, step: int) -> None:
        """Write a checkpoint of `step`, whole and flushed to the disk, then remove those that are too many.

        Raises OutputError where the disk is full or not writable; the checkpoints before stay.
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
        """Put the parts where the last whole checkpoint has them; its step, or None where there is none at all.

        A damaged checkpoint is passed over with a warning. Raises ModelError where all are damaged or one is of a newer
        version, SettingsError where the recipe is another.
        """
        files = self._files()
        for file in reversed(files):
            try:
                document, tensors = self._read(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s: is damaged (%s), the checkpoint before it is used", file, error)
                continue
            self._check(document["recipe"])
            states = {name: from_json(state, tensors) for name, state in document["parts"].items()}
            if missing := set(self.parts) ^ set(states):
                raise ModelError(
                    f"holds another list of parts (only one side has {', '.join(sorted(missing))})", path=file
                )
            for name, part in self.parts.items():
                part.load_state_dict(states[name])
            return int(document["step"])
        if files:
            raise ModelError("no checkpoint is whole", path=self.folder, hint="Train again in another folder")
        return None

    def last(self) -> int | None:
        """The step of the last checkpoint by its name, None where there is none."""
        files = self._files()
        return int(files[-1].stem) if files else None

    def clear(self) -> None:
        """Remove all checkpoints, and the folder where nothing else is in it."""
        for file in self._files():
            self._remove(file)
        self._remove_strays()
        with suppress(OSError):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(file for file in self.folder.glob("*.json") if file.stem.isdecimal())

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
            raise ValueError("its digest is another")
        tensors = file.with_suffix(".safetensors")
        if _digest(tensors) != document["tensors"]:
            raise ValueError("the digest of its tensors is another")
        return document, read_tensors(tensors)

    def _check(self, recipe: Mapping[str, str]) -> None:
        for name in sorted(set(recipe) | set(self._recipe)):
            if recipe.get(name) != self._recipe.get(name):
                raise SettingsError(
                    f"was begun with other {name}",
                    path=self.folder.parent,
                    hint=f"Resume with the {name} of the start, or train into another folder",
                )

    def _remove_old(self) -> None:
        for file in self._files()[: -self.keep]:
            self._remove(file)
        self._remove_strays()

    def _remove(self, file: Path) -> None:
        # The JSON goes first: without it the tensors do not count.
        for gone in (file, file.with_suffix(".safetensors")):
            self._before(f"remove {gone.suffix}")
            gone.unlink(missing_ok=True)

    def _remove_strays(self) -> None:
        for tensors in self.folder.glob("*.safetensors"):
            if tensors.stem.isdecimal() and not tensors.with_suffix(".json").exists():
                self._before("remove stray")
                tensors.unlink(missing_ok=True)


def to_json(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors are put into `tensors` under the name of their place.

    Knows None, bool, int, float, str, tensors, NumPy arrays and scalars (which become Python's), and lists, tuples and dicts
    of them. Raises TypeError, with the place, for anything else.
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
    raise TypeError(f"{place}: a {type(value).__name__} cannot be kept in a checkpoint")


def from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The way back of `to_json`."""
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
    """Have the system put a file, or a folder's list of files, on the disk."""
    if path.is_dir():
        with suppress(OSError):  # Windows opens no folders, and some network file systems do not flush them
            _flush_handle(os.open(path, os.O_RDONLY))
    else:
        _flush_handle(os.open(path, os.O_RDWR))


def _flush_handle(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
