"""The contract of all networks, and what those share that see their condition as planes beside the noisy image."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from anatogen.errors import ModelError


class PlaneMaker(Protocol):
    """Makes planes (B, count, *spatial) of a condition; `conditioning.encode.Planes` is one."""

    @property
    def count(self) -> int:
        """How many planes there are."""
        ...

    def __call__(self, labels: Tensor, states: Tensor, region: Tensor | None = None) -> Tensor:
        """The planes of labels (B, *spatial), states (B, R, C-1) and region (B, *spatial)."""
        ...


class Network(nn.Module):
    """(x, t, labels, states, region, vector) -> prediction; see the package's text.

    Attributes:
        multiples: what each side of x must be a multiple of.
    """

    multiples: tuple[int, ...]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor,
        states: Tensor,
        region: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        """The prediction (B, C, *spatial)."""
        raise NotImplementedError


class PlaneNetwork(Network):
    """A network of (x, t, planes) behind the contract of all networks."""

    def __init__(self, planes: PlaneMaker) -> None:
        super().__init__()
        self.planes = planes

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor,
        states: Tensor,
        region: Tensor | None = None,
        vector: Tensor | None = None,
        *,
        planes: Tensor | None = None,
    ) -> Tensor:
        """The prediction (B, C, *spatial).

        Args:
            planes: those of this condition, where the caller has made them, as a walk of many steps does.

        Raises:
            ModelError: there is a `vector`, of which this network has no use.
        """
        if vector is not None:
            raise ModelError("the network takes no attributes", hint="Leave the attributes out")
        if planes is None:
            planes = self.planes(labels, states, region)
        return self.predict(x, t, planes.to(x.dtype))

    def predict(self, x: Tensor, t: Tensor, planes: Tensor) -> Tensor:
        """The prediction (B, C, *spatial) of x (B, C, *spatial), t (B,), planes (B, P, *spatial)."""
        raise NotImplementedError
