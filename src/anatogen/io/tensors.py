"""Tensors in safetensors files, which cannot contain code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, from any device and in any memory format. Raises OSError if the file cannot be written."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().contiguous().cpu()
        if copy.data_ptr() in seen:  # safetensors rejects two names for one memory
            copy = copy.clone()
        seen.add(copy.data_ptr())
        plain[name] = copy
    try:
        save_file(plain, path)
    except SafetensorError as error:  # its text has the system's error
        raise OSError(None, str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, on the CPU. Raises OSError or ValueError if it is missing or damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
