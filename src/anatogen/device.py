"""Device, precision and memory of the machine."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal

from anatogen.errors import SettingsError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes a GPU where there is one. Raises SettingsError where it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device '{name}' is not available here", hint="Use --device auto or cpu") from error


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 faster than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile") or capabilities.get("bf16"))
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context that computes in bfloat16 where `precision` asks for it (`auto`: where the hardware has it)."""
    import torch

    if precision == "bfloat16" or (precision == "auto" and has_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def give_back_memory() -> None:
    """Give the system what the allocator keeps of freed memory; does nothing where the C library is not glibc.

    Small results between large blocks that come and go keep glibc's heap from shrinking: 42 KB an image of 64 x 64, without end.
    """
    with suppress(OSError, AttributeError, TypeError):  # musl, macOS; Windows
        ctypes.CDLL(None).malloc_trim(0)
