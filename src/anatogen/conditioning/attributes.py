"""Attributes of an image, such as the sequence or the patient's age, as a vector that conditions the network.

A categorical attribute is encoded one-hot, a numeric one standardised, each followed by a flag that says that it is
known. An unknown value is all zeros, so that a network without a bias on the vector is as if it had not been told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anatogen.errors import DataError, SettingsError, nearest

if TYPE_CHECKING:  # preparing a data set does not need PyTorch
    from torch import Tensor

Value = str | float
UNKNOWN = "unknown"
"""What is asked for to leave an attribute out."""
MOST_LEVELS = 64
_NOT_KNOWN = ("", "n/a")  # as in BIDS
_ROUNDING = 1e-6


class Categorical(BaseModel):
    """An attribute with a few texts as values, at least two `levels`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["categorical"] = "categorical"
    name: str
    levels: tuple[str, ...] = Field(min_length=2)

    @property
    def size(self) -> int:
        """The length of its part of the vector."""
        return len(self.levels) + 1

    @property
    def range(self) -> str:
        """Its values in words."""
        return ", ".join(self.levels)

    def read(self, value: Value) -> str:
        """`value` as a level. Raises SettingsError, with the levels, for any other."""
        text = value if isinstance(value, str) else f"{value:g}"
        if text not in self.levels:
            raise SettingsError(f"attribute {self.name} has no value '{text}'", hint=f"Known: {self.range}")
        return text

    def code(self, value: Value) -> float:
        """The number of a level."""
        return float(self.levels.index(self.read(value)))

    def encode(self, codes: Tensor) -> Tensor:
        """Codes (B,), nan where unknown, as (B, size)."""
        known = codes.isfinite()
        import torch
        from torch.nn import functional

        level = functional.one_hot(codes.nan_to_num().long(), len(self.levels)).float()
        return torch.cat([level, torch.ones_like(level[:, :1])], dim=1) * known[:, None]


class Numeric(BaseModel):
    """An attribute whose values are numbers between `low` and `high`, standardised with `mean` and `std`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["numeric"] = "numeric"
    name: str
    mean: float
    std: float = Field(gt=0)
    low: float
    high: float

    @property
    def size(self) -> int:
        """The length of its part of the vector."""
        return 2

    @property
    def range(self) -> str:
        """Its values in words."""
        return f"{self.low:g} to {self.high:g}"

    def read(self, value: Value) -> float:
        """`value` as a number. Raises SettingsError if it is none, or lies outside `low` to `high`."""
        number = _number(value)
        if number is None:
            raise SettingsError(f"attribute {self.name} must be a number, got '{value}'", hint=f"Known: {self.range}")
        margin = _ROUNDING * (self.high - self.low)
        if not self.low - margin <= number <= self.high + margin:
            raise SettingsError(
                f"attribute {self.name} was {self.range} in training, got {number:g}", hint="Choose a value in between"
            )
        return number

    def code(self, value: Value) -> float:
        """The number itself."""
        return self.read(value)

    def encode(self, codes: Tensor) -> Tensor:
        """Codes (B,), nan where unknown, as (B, size)."""
        known = codes.isfinite()
        standard = ((codes - self.mean) / self.std).nan_to_num() * known
        import torch

        return torch.stack([standard, known.float()], dim=1)


Attribute = Categorical | Numeric


class AttributeSchema(BaseModel):
    """The attributes that a model takes, with what their values were in training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attributes: tuple[Annotated[Attribute, Field(discriminator="kind")], ...] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return tuple(each.name for each in self.attributes)

    @property
    def size(self) -> int:
        """V, the length of the vector."""
        return sum(each.size for each in self.attributes)

    def attribute(self, name: str) -> Attribute:
        """The attribute called `name`. Raises SettingsError, with a hint, if there is none."""
        for each in self.attributes:
            if each.name == name:
                return each
        raise SettingsError(f"the model takes no attribute '{name}'", hint=nearest(name, self.names))

    def checked(self, asked: Mapping[str, Value | None]) -> dict[str, Value | None]:
        """What is asked for as levels and numbers; None for "unknown".

        Raises:
            SettingsError: An attribute or a value is not known.
        """
        found: dict[str, Value | None] = {}
        for name, value in asked.items():
            attribute = self.attribute(name)
            found[name] = None if value is None or value == UNKNOWN else attribute.read(value)
        return found

    def understood(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those of `values` that the model can be told: of its attributes, levels and numbers as in training."""
        found: dict[str, Value] = {}
        for each in self.attributes:
            if each.name in values:
                try:
                    found[each.name] = each.read(values[each.name])
                except SettingsError:
                    continue
        return found

    def codes(self, items: Sequence[Mapping[str, Value]]) -> Tensor:
        """The values of B items as float32 (B, A): the number of a level, or the number; nan where not understood."""
        rows = [self.understood(values) for values in items]
        table = [
            [each.code(row[each.name]) if each.name in row else math.nan for each in self.attributes] for row in rows
        ]
        import torch

        return torch.tensor(table, dtype=torch.float32).reshape(len(items), len(self.attributes))

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, A) as float32 (B, V), the `Condition.vector`."""
        import torch

        return torch.cat([each.encode(codes[:, i]) for i, each in enumerate(self.attributes)], dim=1)


def draw_known(codes: Tensor, chance: Tensor, *, dropout: float) -> Tensor:
    """Codes (B, A) for one training step, with nan for what is left out.

    Each attribute is left out with probability `dropout`, and with the same probability all of an item's at once, for
    guidance.

    Args:
        codes: (B, A), nan where unknown.
        chance: (B, A + 1), uniform in [0, 1): a random number for each attribute and one for all.
        dropout: In [0, 1].
    """
    left_out = (chance[:, :-1] < dropout) | (chance[:, -1:] < dropout)
    return codes.masked_fill(left_out, math.nan)


def is_known(text: str) -> bool:
    """Whether a cell of a table says something: not when it is empty or "n/a"."""
    return text.strip() not in _NOT_KNOWN


def learned(name: str, values: Iterable[Value | None]) -> Attribute:
    """The attribute `name` with the levels or the statistics of its known `values`: numeric if all are numbers.

    Raises:
        DataError: Most values are numbers, and some are not.
        SettingsError: There are fewer than two different values, or too many texts.
    """
    known = [value for value in values if value is not None and (not isinstance(value, str) or is_known(value))]
    numbers = require_one_kind(name, known)
    if len(set(numbers or known)) < 2:
        what = "no known value" if not known else f"a single value ({known[0]})"
        raise SettingsError(
            f"attribute {name} has {what} in the training split", hint="Leave it out: nothing can be learned from it"
        )
    if numbers:
        mean = math.fsum(numbers) / len(numbers)
        std = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
        return Numeric(name=name, mean=mean, std=std, low=min(numbers), high=max(numbers))
    levels = sorted({str(value) for value in known})
    if len(levels) > MOST_LEVELS:
        raise SettingsError(
            f"attribute {name} has {len(levels)} different texts, more than {MOST_LEVELS}",
            hint="Leave it out: a text that names its patient is learned by heart",
        )
    return Categorical(name=name, levels=tuple(levels))


def require_one_kind(name: str, known: Sequence[Value]) -> list[float]:
    """The known values as numbers, or none if they are texts.

    Raises:
        DataError: At least half of them are numbers, and others are not.
    """
    numbers = [number for value in known if (number := _number(value)) is not None]
    if len(numbers) == len(known):
        return numbers
    if 2 * len(numbers) >= len(known):
        odd = next(value for value in known if _number(value) is None)
        raise DataError(
            f"attribute {name} has the text '{odd}' among numbers", hint="Leave the value empty if it is not known"
        )
    return []


def parse_attributes(texts: Iterable[str], schema: AttributeSchema | None) -> dict[str, Value | None]:
    """What the texts "name=value" ask of a model that takes `schema`; None for "unknown".

    Raises:
        SettingsError: A text is no "name=value", a name is given twice, or the model does not know it or its value.
    """
    found: dict[str, Value | None] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise SettingsError(f"expected NAME=VALUE, got '{text}'", hint="Use for instance --attribute sequence=T2")
        if name in found:
            raise SettingsError(f"attribute '{name}' is given twice", hint="Give it once")
        found[name] = value
    return require_attributes(schema, found)


def require_attributes(schema: AttributeSchema | None, asked: Mapping[str, Value | None]) -> dict[str, Value | None]:
    """`AttributeSchema.checked` for a model that may take no attributes at all, which is a SettingsError then."""
    if not asked:
        return {}
    if schema is None:
        raise SettingsError(
            f"the model takes no attributes, but {next(iter(asked))} is asked for",
            hint="Train one that does: anatogen train --set conditioning.attributes=[NAME]",
        )
    return schema.checked(asked)


def _number(value: Value) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
