"""Base classes of typed settings (YAML files, "key=value" texts) and typed documents (JSON): frozen, validated."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from anatogen.errors import DataError, SettingsError, nearest
from anatogen.files import writing


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(BaseModel):
    """The content of a JSON file or of one line of a JSON Lines file, as a frozen class that validates it.

    A subclass states FORMAT, the newest format number that it knows, which is written under "format" and checked when
    read. A document without a number has format 1. `upgraded` converts an older one to the current keys. HINT says what
    to do if a file is missing or damaged. Unknown keys are ignored. A field that is None is not written; nan and
    infinities are written as null, because JSON has none, so a field that may be nan is declared `float | None`.

    >>> class Note(Document):
    ...     text: str = ""
    >>> Note(text="a").text_on_disk()
    '{"format": 1, "text": "a"}'
    """

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)
    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Create it again"

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """Convert the content `raw` of a document of an older `format` to FORMAT."""
        return raw

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document in `path`.

        Raises:
            DataError: The file is missing, damaged or of a newer format.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"), path)
        except FileNotFoundError as error:
            raise DataError("does not exist", path=path, hint=cls.HINT) from error
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error})", path=path, hint=cls.HINT) from error
        except UnicodeDecodeError as error:
            raise DataError("is damaged (it is not text)", path=path, hint=cls.HINT) from error

    @classmethod
    def parse(cls, text: str, path: Path, line: int | None = None) -> Self:
        """The document in `text`.

        Args:
            text: The JSON.
            path: The file that it is from, for messages.
            line: Its line number in that file, if it is one line of several.

        Raises:
            DataError: The text is damaged or of a newer format.
        """
        place = "is damaged" if line is None else f"line {line} is damaged"
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict):
                raise ValueError("not a JSON object")
            found = raw.get("format", 1)
            # Sample sets of version 0.1 store their image format under this key.
            number = 1 if isinstance(found, str) else int(found)
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{place} ({_first_line(error)})", path=path, hint=cls.HINT) from error
        if number > cls.FORMAT:
            raise DataError(
                f"has format {number}, and this version of anatogen reads formats up to {cls.FORMAT}",
                path=path,
                hint="Upgrade anatogen",
            )
        try:
            return cls.model_validate(raw if number == cls.FORMAT else cls.upgraded(raw, number))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "content"
            raise DataError(f"{place} ({key}: {first['msg']})", path=path, hint=cls.HINT) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # from `upgraded`
            raise DataError(f"{place} ({_first_line(error)})", path=path, hint=cls.HINT) from error

    def content(self) -> dict[str, Any]:
        """The content of the file: the format number and every field that is not None."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"format": self.FORMAT, **_without_nan(fields)}

    def text_on_disk(self, *, indent: int | None = None) -> str:
        """The document as JSON, on one line unless `indent` is set."""
        return json.dumps(self.content(), indent=indent, ensure_ascii=False, allow_nan=False)

    def write(self, path: Path) -> None:
        """Write the document to `path` atomically.

        Raises:
            OutputError: The file cannot be written.
        """
        with writing(path) as partial:
            partial.write_text(self.text_on_disk(indent=1) + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def last_part(text: str) -> str:
    """The last part of an absolute path of any operating system; any other text unchanged."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() and path.name:
            return path.name
    return text


def without_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, each absolute path (also after "=" or between commas) reduced to its last part."""
    return ["=".join(",".join(map(last_part, part.split(","))) for part in text.split("=")) for text in arguments]


def command_of_process() -> str:
    """The command line of this process without absolute paths, as documents record it."""
    program, *arguments = sys.argv or [""]
    name = PurePosixPath(program).name
    start = ["anatogen"] if name in ("anatogen", "__main__.py") else ["python", *([name] if name else [])]
    return shlex.join([*start, *without_paths(arguments)])


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        SettingsError: The file cannot be read or does not contain settings.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"cannot be read as settings ({reason})", path=path) from error
    if not isinstance(tree, dict):
        raise SettingsError(
            "does not contain settings", path=path, hint="Expected for instance 'training: {batch_size: 8}'"
        )
    return tree


def parse_value(text: str) -> dict[str, Any]:
    """The settings tree for a text such as "network.width=96".

    Raises:
        SettingsError: The text is not key=value.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"expected key=value, got '{text}'", hint="Use for instance --set network.width=96")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"the value of '{text}' cannot be read") from error
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def explain(error: ValidationError, known: list[str]) -> SettingsError:
    """The first error of `error` in one line. `known` lists the full names that exist."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("hourglass", "paper_unet")]
    key = ".".join(place) or "settings"
    if first["type"] == "extra_forbidden":
        below = first["input"]
        while isinstance(below, dict) and len(below) == 1:  # a section of another name: what was meant is in it
            name, below = next(iter(below.items()))
            key += f".{name}"
        return SettingsError(f"unknown setting '{key}'", hint=nearest(key, known))
    return SettingsError(
        f"{key}: {first['msg'].removeprefix('Value error, ')}",
        hint="See the setting's range with anatogen train --help",
    )


def setting_names(tree: type[BaseModel]) -> list[str]:
    """The full names of all settings below `tree`: "training.batch_size" and so on."""

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


def parse_sides(text: str, dim: int, option: str) -> tuple[int, ...]:
    """The sides in "256", "256x192" or "64x96x96", `dim` of them.

    Raises:
        SettingsError: The text, given with `option`, is not a size of `dim` sides.
    """
    try:
        sides = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) == 1:
        sides *= dim
    if len(sides) != dim:
        example = "256 or 256x192" if dim == 2 else "64 or 64x96x96"
        raise SettingsError(f"{option} must have {dim} sides, got {text}", hint=f"Use for instance {example}")
    return sides


def parse_interval(text: str, option: str) -> tuple[float, float]:
    """The two numbers in "LOW,HIGH".

    Raises:
        SettingsError: The text, given with `option`, is not two numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"{option} {text} is not two numbers", hint="Use for instance 0.2,0.75") from error
    return low, high
