"""Typed documents on disk: read, checked, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from anatogen.errors import DataError, OutputError
from anatogen.settings import Document


class Note(Document):
    FORMAT: ClassVar[int] = 3
    HINT: ClassVar[str] = "Write the note again"

    text: str
    share: float | None = None
    of_two: tuple[int, int] = (0, 0)
    kept: dict[str, float | None] = Field({})
    weight: float | None = Field(None, alias="lambda")

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:
        return {**raw, "text": raw["words"]} if format == 1 else raw


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    note = Note(text="Ä", of_two=(1, 2), kept={"a": float("nan")}, weight=0.5)
    note.write(tmp_path / "deep" / "note.json")
    raw = json.loads((tmp_path / "deep" / "note.json").read_text(encoding="utf-8"))
    assert raw == {"format": 3, "text": "Ä", "of_two": [1, 2], "kept": {"a": None}, "lambda": 0.5}
    assert Note.read(tmp_path / "deep" / "note.json") == note.model_copy(update={"kept": {"a": None}})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["note.json"]
    assert "\n" not in note.text_on_disk()
    with pytest.raises(ValidationError):
        note.text = "other"  # type: ignore[misc]


def test_older_formats_are_upgraded_and_unknown_keys_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    for raw in (
        {"words": "old"},
        {"format": 1, "words": "old"},
        {"format": 2, "text": "old"},
        {"format": "png", "words": "old"},
    ):
        path.write_text(json.dumps({**raw, "more": 1}))
        assert Note.read(path) == Note(text="old")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"format": 4, "text": "a"}',
            "has format 4, and this version of anatogen reads formats up to 3. Upgrade anatogen.",
        ),
        ('{"format": 3', r"is damaged \(Expecting"),
        ("[1]", "not a JSON object"),
        ('{"format": null}', "is damaged"),
        ('{"format": 3, "text": 5}', r"is damaged \(text: .*Write the note again\."),
        ('{"format": 3, "text": "a", "of_two": [1]}', r"\(of_two"),
        ('{"format": 1, "text": "a"}', r"is damaged \('words'\)"),
        ("[" * 100_000, "is damaged"),
        (None, "does not exist. Write the note again"),
    ],
)
def test_bad_documents_are_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "note.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as refused:
        Note.read(path)
    assert "\n" not in str(refused.value) and str(refused.value).startswith(str(path))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not text"):
        Note.read(tmp_path / "binary.json")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    Note(text="first").write(path)
    (tmp_path / "a file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Note(text="second").write(tmp_path / "a file" / "note.json")
    assert Note.read(path).text == "first"
