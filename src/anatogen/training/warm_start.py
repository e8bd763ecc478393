"""Starting a training from the weights of another run, its classes matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from anatogen.conditioning.attributes import AttributeSchema, Categorical, Numeric
from anatogen.errors import SettingsError
from anatogen.model import Denoiser, DenoiserConfig
from anatogen.networks.contract import PlaneNetwork

_OF_ATTRIBUTES = "network.from_vector.weight"


def start_from(denoiser: Denoiser, other: Denoiser, run: Path) -> tuple[str, ...]:
    """Copy the weights of `other` into `denoiser`; what belongs to a class or an attribute goes to that of the same
    name.

    For label maps without the new classes, `denoiser` then predicts what `other` predicts (with the same statistics of
    the images). New classes and attributes start without any influence.

    Args:
        denoiser: Changed in place.
        other: Of the same network, path, target, encoding and number of channels.
        run: Where `other` is from, for messages.

    Returns:
        The classes that `other` does not have.

    Raises:
        SettingsError: The two differ in more than classes and image size.
    """
    _require_same_kind(denoiser.config, other.config, run)
    names, theirs = denoiser.schema.names, other.schema.names
    places = [theirs.index(name) if name in theirs else None for name in names]
    own, weights = denoiser.state_dict(), other.state_dict()
    network = denoiser.network
    inputs = network.plane_inputs() if isinstance(network, PlaneNetwork) else {}
    for name, tensor in own.items():
        source, place = weights.get(name), inputs.get(name.removeprefix("network."))
        if source is not None and name == "network.planes.table":
            source = _rows(source, tensor, places, len(theirs))
        elif source is not None and name == "network.planes.of_states.weight":
            source = _matched(source[:, None, :], places)[:, 0]
        elif name == _OF_ATTRIBUTES:
            source = _of_attributes(source, tensor, denoiser.config.attributes, other.config.attributes)
        same_layer = source is not None and (len(source), *source.shape[2:]) == (len(tensor), *tensor.shape[2:])
        if source is not None and place is not None and same_layer and denoiser.config.encoding == "onehot":
            source = _columns(source, tensor, places, len(theirs), place)
        if source is None or source.shape != tensor.shape:
            raise SettingsError(
                f"its network has other layers ({name}), as it makes images of {_size(other.config)}",
                path=run,
                hint=f"Prepare the data with that size instead of {_size(denoiser.config)}",
            )
        tensor.copy_(source)
    return tuple(name for name, place in zip(names, places, strict=True) if place is None)


def _of_attributes(
    source: Tensor | None, like: Tensor, ours: AttributeSchema | None, theirs: AttributeSchema | None
) -> Tensor:
    """The weights (channels, V) of our attributes: by name and level those of theirs, zero where they have none.

    A number has other statistics here. With theirs w (x - m) / s + k, ours are w s' / s and k + w (m' - m) / s.
    """
    found = torch.zeros_like(like)
    if source is None or ours is None or theirs is None:
        return found
    columns = dict(zip(theirs.names, torch.split(source, [each.size for each in theirs.attributes], 1), strict=True))
    for attribute, part in zip(
        ours.attributes, torch.split(found, [each.size for each in ours.attributes], 1), strict=True
    ):
        old = theirs.attribute(attribute.name) if attribute.name in theirs.names else None
        if isinstance(attribute, Numeric) and isinstance(old, Numeric):
            weight, known = columns[attribute.name].unbind(1)
            part[:, 0] = weight * attribute.std / old.std
            part[:, 1] = known + weight * (attribute.mean - old.mean) / old.std
        elif isinstance(attribute, Categorical) and isinstance(old, Categorical):
            for number, level in enumerate(attribute.levels):
                if level in old.levels:
                    part[:, number] = columns[attribute.name][:, old.levels.index(level)]
            part[:, -1] = columns[attribute.name][:, -1]
    return found


def _columns(source: Tensor, like: Tensor, places: Sequence[int | None], count: int, place: tuple[int, int]) -> Tensor:
    """The weights (out, in, ...) of `source` with the input planes of its `count` classes put where `places` has
    them.
    """
    before, group = place
    theirs = _by_class(source[:, before * group :], count, group)
    found = torch.zeros_like(like)
    found[:, : before * group] = source[:, : before * group]
    ours = _by_class(found[:, before * group :], len(places), group)
    for number, their_place in enumerate(places):
        if their_place is not None:
            ours[:, :, number] = theirs[:, :, their_place]
    found[:, before * group :] = ours.flatten(1, 3)
    return found


def _rows(source: Tensor, like: Tensor, places: Sequence[int | None], count: int) -> Tensor:
    """The rows (1 + cell classes, channels) of a table, those of its `count` classes put where `places` has them."""
    if count == 0 or (len(source) - 1) * len(places) != (len(like) - 1) * count:
        return source  # of cells of another size, which is refused
    by_class = source[1:].T.reshape(source.shape[1], -1, count)  # (channels, cell, classes)
    return torch.cat([source[:1], _matched(by_class, places).flatten(1).T])


def _matched(source: Tensor, places: Sequence[int | None]) -> Tensor:
    """`source` (..., their classes) as (..., our classes); zero where they have none."""
    found = source.new_zeros(*source.shape[:-1], len(places))
    for number, their_place in enumerate(places):
        if their_place is not None:
            found[..., number] = source[..., their_place]
    return found


def _by_class(weights: Tensor, classes: int, group: int) -> Tensor:
    """(out, 2 classes group, ...) as (out, 2, classes, group, ...): the planes of labels, then those of states."""
    return weights.reshape(len(weights), 2, classes, group, *weights.shape[2:])


def _require_same_kind(ours: DenoiserConfig, theirs: DenoiserConfig, run: Path) -> None:
    for name in ("image_channels", "encoding", "path", "target", "network"):
        mine, yours = getattr(ours, name), getattr(theirs, name)
        if mine != yours:
            shown = (str(yours), str(mine)) if name != "network" else ("another network", "this one")
            raise SettingsError(
                f"was trained with {name.replace('_', ' ')} {shown[0]}, not {shown[1]}",
                path=run,
                hint="Leave the setting out: --from takes the run's own",
            )
    if len(ours.size) != len(theirs.size):
        raise SettingsError(f"makes images of {_size(theirs)}, the data set has {_size(ours)}", path=run)
    if ours.encoding == "index" and ours.classes != theirs.classes:
        raise SettingsError(
            "has other classes, which the encoding 'index' cannot match by name",
            path=run,
            hint="Prepare the data with the run's classes, in its order",
        )


def _size(config: DenoiserConfig) -> str:
    return " x ".join(map(str, config.size))
