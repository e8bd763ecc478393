"""The interface of all networks, and the base of those whose condition is planes beside the noisy image."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from anatogen.errors import ModelError


class PlaneMaker(Protocol):
    """Turns a condition into planes (B, count, *spatial); `conditioning.encode.Planes` is one.

    The hourglass also takes a `LabelEmbedding`, whose planes are the learned features of cells.
    """

    @property
    def count(self) -> int:
        """The number of planes."""
        ...

    def __call__(self, labels: Tensor, states: Tensor, region: Tensor | None = None) -> Tensor:
        """The planes of labels (B, *spatial), states (B, R, C-1) and region (B, *spatial)."""
        ...


class Network(nn.Module):
    """(x, t, labels, states, region, vector) -> prediction; shapes as in `anatogen.networks`.

    Attributes:
        multiples: What each side of x must be a multiple of.
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
    """A network of (x, t, planes) behind the interface of all networks.

    Attributes:
        vector_size: V, the length of the vector of attributes that it takes; 0 if it takes none.
    """

    vector_size: int = 0

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
            x: Noisy images (B, C, *spatial).
            t: (B,), in [0, 1].
            labels: int64 (B, *spatial).
            states: Bool (B, R, C-1).
            region: uint8 (B, *spatial), or None.
            vector: float32 (B, V) of attributes; None is as if all were unknown.
            planes: The planes of this condition, where the caller has made them, as a sampler of many steps does.

        Raises:
            ModelError: The network cannot take such a `vector`.
        """
        if vector is not None and vector.shape[1] != self.vector_size:
            raise ModelError("this network does not take these attributes", hint="Leave the attributes out")
        if planes is None:
            planes = self.planes(labels, states, region)
        return self.predict(x, t, planes.to(x.dtype), vector)

    def plane_inputs(self) -> dict[str, tuple[int, int]]:
        """The weights (out, in, ...) whose inputs are planes: by name, the image channels before them and inputs per
        channel.
        """
        raise NotImplementedError

    def predict(self, x: Tensor, t: Tensor, planes: Tensor, vector: Tensor | None = None) -> Tensor:
        """The prediction (B, C, *spatial) of x (B, C, *spatial), t (B,), planes (B, P, *spatial), vector (B, V)."""
        raise NotImplementedError
