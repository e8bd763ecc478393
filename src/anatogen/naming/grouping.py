"""Group the cases of a data set into patients by their names, if the layout does not name its patients.

A running number is a patient (hippocampus_001). Words and numbers that distinguish scans of one patient are ignored:
frame, phase, visit, session, time point, series, run, sequence, view, side, slice, date (patient001_frame12,
001_SA_ED). Well-known data sets whose numbers mean something else are listed. If two numbers or words could be the
patient, the names are ambiguous, and a `Question` says so instead of a guess.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from anatogen.naming.words import ATTACHED, COHORT_WORDS, COUNTED, KNOWN, PATIENT_WORDS, SCAN_WORDS

_KNOWN = {name: re.compile(pattern) for name, pattern in KNOWN.items()}
_BIDS = re.compile(r"^(?:.*_)?sub-[^_]+")
_PIECES = re.compile(
    r"(?P<uuid>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})"
    r"|(?P<uid>\d+(?:\.\d+){3,})"
    r"|(?<!\d)(?P<date>(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])-(?:19|20)\d\d)(?!\d)"
    r"|(?P<token>[^\W_]+)"
)

Kind = Literal["word", "id", "date"]


@dataclass(frozen=True)
class Question:
    """An ambiguity in the names of a set, and the two answers as values of --patient-pattern.

    Attributes:
        together, apart: The pattern under which the two `examples` are one patient, and two; "" if only a table can say
            it.
        patients: The number of patients under each.
    """

    examples: tuple[str, str]
    together: str
    apart: str
    patients: tuple[int, int]

    @property
    def problem(self) -> str:
        """The question in words."""
        return f"the names are ambiguous: {self.examples[0]} and {self.examples[1]} may be one patient or two"

    @property
    def hint(self) -> str:
        """The two answers as options of the command line."""
        if not self.together or not self.apart:
            return "Name the patients with --patients FILE.csv, a table with the columns case and patient"
        one, two = self.patients
        return (
            f"Use --patient-pattern {shlex.quote(self.together)} if one ({one} patients in all), "
            f"--patient-pattern {shlex.quote(self.apart)} if two ({two} patients)"
        )


@dataclass(frozen=True)
class Grouping:
    """The patients of a set of names.

    Attributes:
        patients: The patient of each case, by the case's name; each its own patient if no two cases belong together.
        words: What distinguished scans of one patient, or the name of the data set.
        question: What is ambiguous.
    """

    patients: Mapping[str, str]
    words: tuple[str, ...] = ()
    question: Question | None = None

    @property
    def joined(self) -> bool:
        """Whether any two cases are of the same patient."""
        return len(set(self.patients.values())) < len(self.patients)

    def summary(self) -> str:
        """A summary in one line; "" if no cases were grouped."""
        if not self.joined:
            return ""
        first: dict[str, str] = {}
        pair = next((first[p], case, p) for case, p in self.patients.items() if first.setdefault(p, case) != case)
        return (
            f"{len(self.patients)} cases are {len(set(self.patients.values()))} patients, by their names "
            f"({', '.join(self.words)}): {pair[0]} and {pair[1]} are both {pair[2]}"
        )


def group_by_name(names: Iterable[str]) -> Grouping:
    """Group cases by their `names`, which are all names of the set."""
    names = list(dict.fromkeys(names))
    parsed = _Parsed.of(names)
    keys = {name: parsed.key(name) for name in names}
    question = _question(keys)
    if question is not None:
        return Grouping({name: name for name in names}, (), question)
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        grouped[keys[name].text.casefold()].append(name)
    if len(grouped) == len(names):
        return Grouping({name: name for name in names})
    several = [keys[name] for own in grouped.values() if len(own) > 1 for name in own]
    words = sorted({word for key in several for word in key.words}) or ["capital letters"]
    patients = {name: keys[own[0]].text for own in grouped.values() for name in own}
    return Grouping({name: patients[name] for name in names}, tuple(words))


@dataclass(frozen=True)
class _Part:
    """A word, a number (or code) or a date in a name. before: the word that a number belongs to, if any."""

    kind: Kind
    text: str
    start: int
    end: int
    before: str = ""
    attached: bool = False

    @property
    def lower(self) -> str:
        return self.text.casefold()

    @property
    def of_patient(self) -> bool:
        return self.kind == "id" and self.before in PATIENT_WORDS

    @property
    def of_cohort(self) -> bool:
        return self.kind == "id" and self.before in COHORT_WORDS - {"case", "cases"} and self.attached

    @property
    def counts_scans(self) -> bool:
        return self.kind == "id" and self.before in (ATTACHED if self.attached else COUNTED)


@dataclass(frozen=True)
class _Key:
    """The part of a name that identifies the patient. parts: empty if the name itself does. words: what was ignored."""

    text: str
    parts: tuple[_Part, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[str, ...]:
        return tuple("#" if part.kind == "id" and not part.of_cohort else part.lower for part in self.parts)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(part.lower for part in self.parts if part.kind == "id" and not part.of_cohort)

    @property
    def unknown_words(self) -> tuple[str, ...]:
        return tuple(p.lower for p in self.parts if p.kind == "word" and p.lower not in COHORT_WORDS)


@dataclass(frozen=True)
class _Parsed:
    """The parts of every name; numbers that are the same in all of them count as words."""

    parts: Mapping[str, tuple[_Part, ...]]
    scan_words: frozenset[str] = field(default=SCAN_WORDS)

    @classmethod
    def of(cls, names: Sequence[str]) -> _Parsed:
        parts = {name: tuple(_parts(name)) for name in names}
        values: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for own in parts.values():
            for place, part in _columns(own):
                values[place].append(part.lower)
        constant = {place for place, there in values.items() if len(there) == len(names) > 1 and len(set(there)) == 1}
        parts = {name: tuple(_constant_as_words(own, constant)) for name, own in parts.items()}
        retest = any(part.lower == "retest" for own in parts.values() for part in own)
        return cls(parts, SCAN_WORDS | {"test"} if retest else SCAN_WORDS)

    def key(self, name: str) -> _Key:
        """The key of the patient in `name`."""
        for known, pattern in _KNOWN.items():
            if match := pattern.search(name):
                return _Key(match.groupdict().get("p") or match[0], words=(known,))
        if match := _BIDS.match(name):
            return _Key(match[0], words=("sub-",))
        parts = self.parts[name]
        patient = next((i for i, part in enumerate(parts) if part.of_patient), None)
        kept = [i for i, _ in enumerate(parts) if not self._drops(parts, i, patient)]
        if not kept:
            return _Key(name, parts)
        words = [parts[i].before or parts[i].lower for i in range(len(parts)) if i not in kept]
        words_of_scan = tuple(
            "date" if parts[i].kind == "date" else w for i, w in zip(_without(parts, kept), words, strict=True)
        )
        words_of_scan = tuple(w for w in words_of_scan if w in self.scan_words | ATTACHED | {"date"}) or (
            "patient",
        ) * bool(words)
        whole = kept == list(range(kept[-1] + 1))
        text = name[: parts[kept[-1]].end] if whole else "_".join(parts[i].text for i in kept)
        return _Key(
            text, () if patient is not None else tuple(parts[i] for i in kept), tuple(dict.fromkeys(words_of_scan))
        )

    def _drops(self, parts: tuple[_Part, ...], i: int, patient: int | None) -> bool:
        """Whether part `i` distinguishes scans, not patients. patient: the part that is a patient's number, if any."""
        part = parts[i]
        if patient is not None and i > patient:
            return True
        numbers = [j for j, p in enumerate(parts) if p.kind == "id" and not p.of_cohort]
        earlier = [j for j in numbers if j < i and not parts[j].counts_scans]
        if part.kind == "date":
            return patient is not None or any(not parts[j].counts_scans for j in numbers)
        if part.counts_scans:
            return patient is not None or bool(earlier)
        if part.lower not in self.scan_words and not (part.kind == "word" and self._belongs_to_scan(parts, i)):
            return False
        if i + 1 < len(parts) and parts[i + 1].counts_scans and parts[i + 1].before == part.lower:
            return self._drops(parts, i + 1, patient)  # a word goes with its number
        others = (j for j, p in enumerate(parts) if j != i and p.kind != "date" and p.lower not in self.scan_words)
        return any(True for _ in others)

    @staticmethod
    def _belongs_to_scan(parts: tuple[_Part, ...], i: int) -> bool:
        return i + 1 < len(parts) and parts[i + 1].counts_scans and parts[i + 1].before == parts[i].lower


def _without(parts: Sequence[_Part], kept: Sequence[int]) -> list[int]:
    return [i for i in range(len(parts)) if i not in kept]


def _parts(name: str) -> Iterator[_Part]:
    """Words, numbers and dates of a name, each number with the word before it."""
    before = ""
    for match in _PIECES.finditer(name):
        start, end = match.span()
        if match["date"]:
            yield _Part("date", match[0], start, end)
            before = ""
            continue
        for kind, text, attached in _split(match[0]) if match["token"] else [("id", match[0], False)]:
            where = name.index(text, start)
            start = where + len(text)
            yield _Part(kind, text, where, start, before if kind == "id" else "", attached)  # type: ignore[arg-type]
            before = text.casefold() if kind == "word" else ""


def _split(token: str) -> list[tuple[str, str, bool]]:
    """(kind, text, whether a number is attached to the word before it) of the letters and digits between two
    separators.
    """
    lower = token.casefold()
    if lower in SCAN_WORDS and lower not in ("2c", "4c"):
        return [("word", token, False)]
    runs = re.findall(r"\d+|\D+", token)
    if len(runs) == 1:
        return [("id" if token[0].isdigit() else "word", token, False)]
    if len(runs) == 2:
        if token[0].isdigit():
            return [("id", runs[0], False), ("word", runs[1], False)]
        return [("word", runs[0], False), ("id", runs[1], True)]
    if len(runs) == 3 and not token[0].isdigit() and len(runs[2]) == 1:
        if runs[0].casefold() in ATTACHED:
            return [("word", runs[0], False), ("id", runs[1] + runs[2], True)]
        return [("word", runs[0], False), ("id", runs[1], True), ("word", runs[2], False)]
    return [("id", token, False)]  # a code


def _columns(parts: Sequence[_Part]) -> Iterator[tuple[tuple[str, ...], _Part]]:
    """Each number with the words before it; numbers with the same words have the same meaning."""
    place: tuple[str, ...] = ()
    for part in parts:
        place = (*place, "#" if part.kind != "word" else part.lower)
        if part.kind == "id":
            yield place, part


def _constant_as_words(parts: Sequence[_Part], constant: Set[tuple[str, ...]]) -> Iterator[_Part]:
    """The parts of a name; a number that every name has in the same place is a word: the 20 of BraTS20_Training_001."""
    starts = {part.start for place, part in _columns(parts) if place in constant}
    for part in parts:
        fixed = part.kind == "id" and part.start in starts and not part.of_patient and not part.counts_scans
        yield _Part("word", part.text, part.start, part.end) if fixed else part


def _question(keys: Mapping[str, _Key]) -> Question | None:
    """The first ambiguity in the names; None if they are clear."""
    distinct = {key.text.casefold(): key for key in keys.values() if key.parts}
    by_shape: defaultdict[tuple[str, ...], list[_Key]] = defaultdict(list)
    for key in distinct.values():
        by_shape[key.shape].append(key)
    for own in by_shape.values():
        columns = list(zip(*(key.ids for key in own), strict=True))
        varying = [c for c, column in enumerate(columns) if len(set(column)) > 1]
        repeated = [c for c in varying if len(set(columns[c])) < len(own)]
        if len(varying) > 1 and repeated:
            value = next(v for v in columns[repeated[0]] if columns[repeated[0]].count(v) > 1)
            pair = [key for key in own if key.ids[repeated[0]] == value]
            column = slice(repeated[0], repeated[0] + 1)
            return _asked(keys, pair[0], pair[1], lambda key: key.ids[column])  # noqa: B023
    by_ids: dict[tuple[str, ...], _Key] = {}
    for key in distinct.values():
        first = by_ids.setdefault(key.ids, key) if key.ids else key
        if first.unknown_words != key.unknown_words and first.ids:
            return _asked(keys, first, key, lambda key: key.ids)
    return None


def _asked(keys: Mapping[str, _Key], first: _Key, second: _Key, patient: Callable[[_Key], Sequence[str]]) -> Question:
    """The question whether the keys `first` and `second` are one patient. patient: what identifies it then."""
    apart = {name: key.text.casefold() for name, key in keys.items()}
    together = {name: "\x1f".join(patient(key)) or apart[name] for name, key in keys.items()}
    by_key = {key.text.casefold(): name for name, key in reversed(list(keys.items()))}
    return Question(
        (by_key[first.text.casefold()], by_key[second.text.casefold()]),
        _pattern(together),
        _pattern(apart),
        (len(set(together.values())), len(set(apart.values()))),
    )


def _pattern(patients: Mapping[str, str]) -> str:
    """A regular expression whose match is the same exactly for names of the same patient; "" if none is."""
    names = list(patients)
    start = re.escape(re.match(r"\D*", _common_start(names))[0]).replace(r"\-", "-").replace(r"\ ", " ")  # type: ignore[index]
    candidates = [
        ".+", rf"^{start}\d+", rf"^{start}\d+\D+\d+", r"^\D*\d+", r"^\D*\d+\D+\d+", r"^\D*(?:\d+\D+){2}\d+", r"\d+(?=\D*$)",  # noqa: E501
        r"^[^_]+", r"^[^_]+_[^_]+", r"[^_]+$", r"^[^_]+_([^_]+)", r"^[^-]+", r"^.+(?=[-_ .][^-_ .]+$)", r"\d+(?=\D+\d+\D*$)",  # noqa: E501
    ]  # fmt: skip
    for candidate in candidates:
        expression = re.compile(candidate)
        found = {name: match[expression.groups] for name in names if (match := expression.search(name))}
        pairs = {(found.get(name, ""), patients[name]) for name in names}
        if len(found) == len(names) and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
            return candidate
    return ""


def _common_start(names: Sequence[str]) -> str:
    low, high = min(names), max(names)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]
