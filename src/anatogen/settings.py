"""The base of typed settings: frozen, every key checked, read from YAML files and from "key=value" texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from anatogen.errors import SettingsError, nearest


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises SettingsError where it cannot be read or holds no settings."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"the settings cannot be read ({reason})", path=path) from error
    if not isinstance(tree, dict):
        raise SettingsError("does not hold settings", path=path, hint="Write for instance 'training: {batch_size: 8}'")
    return tree


def parse_value(text: str) -> dict[str, Any]:
    """The tree that "network.width=96" stands for. Raises SettingsError where it is not key=value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"'{text}' is not key=value", hint="Write for instance --set network.width=96")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"the value of '{text}' cannot be read") from error
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def explain(error: ValidationError, known: list[str]) -> SettingsError:
    """The first fault of `error` in one line. known: the full names that exist."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("hourglass", "paper_unet")]
    key = ".".join(place) or "settings"
    if first["type"] == "extra_forbidden":
        return SettingsError(f"there is no setting '{key}'", hint=nearest(key, known))
    return SettingsError(
        f"{key}: {first['msg'].removeprefix('Value error, ')}",
        hint="See the setting's range with anatogen train --help",
    )


def setting_names(tree: type[BaseModel]) -> list[str]:
    """The full name of every setting below `tree`, "training.batch_size" and so on."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            kinds = getattr(field.annotation, "__args__", None) or (field.annotation,)
            nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
            if nested:
                for kind in nested:
                    yield from walk(kind, f"{prefix}{name}.")
            else:
                yield prefix + name

    return list(dict.fromkeys(walk(tree, "")))
