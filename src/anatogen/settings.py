"""The base of typed settings (YAML files, "key=value" texts) and of typed documents (JSON files, lines of JSON): frozen, checked."""

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
    """What a JSON file, or a line of one, holds: one frozen class that reads, checks and writes it.

    A subclass states FORMAT, the newest format number that it knows, which is written under "format" and checked when read.
    Without a number a document is of format 1. `upgraded` turns an older one into today's keys. HINT: what to do where a file
    is missing or damaged. Keys that a reader does not know are passed over. A field that is None is not written; nan and
    infinities are written as null, for JSON has none, so a field that may be nan is declared `float | None`.

    >>> class Note(Document):
    ...     text: str = ""
    >>> Note(text="a").text_on_disk()
    '{"format": 1, "text": "a"}'
    """

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)
    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Make it again"

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """The content `raw` of a document of an older `format`, as FORMAT has it."""
        return raw

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document in `path`. Raises DataError where it is missing, damaged or of a newer format."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"), path)
        except FileNotFoundError as error:
            raise DataError("there is no such file", path=path, hint=cls.HINT) from error
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error})", path=path, hint=cls.HINT) from error
        except UnicodeDecodeError as error:
            raise DataError("is damaged (it is not text)", path=path, hint=cls.HINT) from error

    @classmethod
    def parse(cls, text: str, path: Path, line: int | None = None) -> Self:
        """The document that `text` holds, which is in `path`, or is its line number `line`. Raises DataError as `read` does."""
        place = "is damaged" if line is None else f"line {line} is damaged"
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict):
                raise ValueError("it holds no object")
            found = raw.get("format", 1)
            # Sample sets of version 0.1 named the format of their images so.
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # of `upgraded`
            raise DataError(f"{place} ({_first_line(error)})", path=path, hint=cls.HINT) from error

    def content(self) -> dict[str, Any]:
        """What a file holds: the format number and every field that is not None."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"format": self.FORMAT, **_without_nan(fields)}

    def text_on_disk(self, *, indent: int | None = None) -> str:
        """The document as JSON; on one line unless there is an `indent`."""
        return json.dumps(self.content(), indent=indent, ensure_ascii=False, allow_nan=False)

    def write(self, path: Path) -> None:
        """Write the document to `path`, which is whole or not there. Raises OutputError where that cannot be done."""
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
    """The last part of an absolute path, of this machine's kind or another's; any other text as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() and path.name:
            return path.name
    return text


def without_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with every absolute path in them, also after "=" or between commas, cut to its last part."""
    return ["=".join(",".join(map(last_part, part.split(","))) for part in text.split("=")) for text in arguments]


def command_of_process() -> str:
    """The command of this process as a document may keep it: without absolute paths."""
    program, *arguments = sys.argv or [""]
    name = PurePosixPath(program).name
    start = ["anatogen"] if name in ("anatogen", "__main__.py") else ["python", *([name] if name else [])]
    return shlex.join([*start, *without_paths(arguments)])


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
