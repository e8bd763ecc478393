"""A device that has no float64, as Apple's GPUs, on a machine that has no such device: its tensors are computed on the
CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "meta"  # the only other device that PyTorch knows in every build; here it does compute
_DEVICE = torch.device(NAME)


class Float64RefusedError(RuntimeError):
    """float64 met the device."""


class OnDevice(Tensor):
    """A tensor that says it lies on the device, and holds its values on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype == torch.float64:
            raise Float64RefusedError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
            )
        made: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [leaf for leaf in tensors if isinstance(leaf, OnDevice)]
    target = kwargs.get("device")
    lands_here = torch.device(target).type == NAME if target is not None else bool(ours)
    if lands_here and any(t.dtype == torch.float64 for t in tensors):
        raise Float64RefusedError(f"{func}: float64 meets a device that has none")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    wrappers = {id(leaf.held): leaf for leaf in ours}
    bare_args, bare_kwargs = tree_map(lambda v: v.held if isinstance(v, OnDevice) else v, (args, kwargs))
    out = func(*bare_args, **bare_kwargs)

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not lands_here:
            return value
        return wrappers.get(id(value)) if id(value) in wrappers else OnDevice(value)

    if target is not None and not lands_here and ours:  # leaving the device: never the device's own memory
        return tree_map(lambda v: v.clone() if isinstance(v, Tensor) and id(v) in wrappers else v, out)
    return tree_map(wrapped, out)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def device_without_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the device NAME takes tensors, and raises Float64RefusedError wherever float64 would meet it."""
    on_cpu = torch.Generator

    class Anywhere:  # a class, because annotations join it with None
        def __new__(cls, device: object = "cpu") -> torch.Generator:  # type: ignore[misc]
            return on_cpu()

    with monkeypatch.context() as patch, _Mode():
        patch.setattr(torch, "Generator", Anywhere)
        yield
