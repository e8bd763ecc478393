"""Device, precision and memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal

from anatogen.errors import SettingsError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` selects a GPU if there is one.

    Raises:
        SettingsError: The device is not available.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device '{name}' is not available", hint="Use --device auto or cpu") from error


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes faster in bfloat16 than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile") or capabilities.get("bf16"))
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context that computes in bfloat16 if `precision` asks for it (`auto`: if the hardware supports it)."""
    import torch

    if precision == "bfloat16" or (precision == "auto" and has_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def give_back_memory() -> None:
    """Return freed memory from the allocator to the operating system. Does nothing without glibc.

    Small results between large temporary blocks keep glibc's heap from shrinking: 42 KB for each image of 64 x 64,
    without limit.
    """
    with suppress(OSError, AttributeError, TypeError):  # musl, macOS; Windows
        ctypes.CDLL(None).malloc_trim(0)
