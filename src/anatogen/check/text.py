"""The report as text for a terminal, with findings of one kind folded into a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.check.findings import SEVERITIES, CheckReport, Finding

_FILES_SHOWN = 3
_CLASSES_SHOWN = 12


def as_text(report: CheckReport) -> str:
    """The whole report, with the verdict last."""
    layout = f"{report.layout}, " if report.layout else ""
    lines = [
        f"{report.location}: {layout}{counted(report.cases, 'case')} of {counted(report.patients, 'patient')}",
        *_classes(report),
    ]
    for severity in SEVERITIES:
        groups = [g for g in report.groups() if g[0].severity == severity]
        if groups:
            lines += ["", f"{severity}s" if len(groups) > 1 else severity]
        for group in groups:
            lines += _folded(group, report.location)
    return "\n".join([*lines, "", verdict(report)])


def counted(number: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share with three significant digits: "2.73 %", "0.000272 %"."""
    return f"{100 * share:.3g} %"


def verdict(report: CheckReport) -> str:
    """One line: whether the data is fit for training, and the number of findings."""
    counts = ", ".join(counted(n, s) for s in SEVERITIES if (n := report.count(s)))
    fixable = sum(f.fixable for f in report.findings)
    fix = f"; --fix OUT writes a copy with {fixable} of them fixed" if fixable else ""
    return f"{'Fit for training' if report.fit else 'NOT fit for training'}: {counts or 'nothing found'}{fix}."


def _classes(report: CheckReport) -> list[str]:
    used = [c for c in report.classes if c.patients]
    width = max((len(c.name) for c in used[:_CLASSES_SHOWN]), default=0)
    lines = []
    for c in used[:_CLASSES_SHOWN]:
        low, middle, high = (percent(share) for share in c.per_patient)
        spread = f", {low} to {high}, median {middle}" if c.annotated > 1 else ""
        lines.append(
            f"  class {c.index:3} {c.name:{width}}  {percent(c.share):>8} of voxels; "
            f"in {c.patients} of {counted(c.annotated, 'patient')}{spread}"
        )
    if len(used) > _CLASSES_SHOWN:
        lines.append(f"  and {len(used) - _CLASSES_SHOWN} more classes")
    return lines


def _folded(group: Sequence[Finding], location: str) -> list[str]:
    """One kind of finding: a few of its files, how many more, and each distinct hint once."""
    lines = [f"  {group[0].code}{f' ({len(group)})' if len(group) > 1 else ''}"]
    lines += [f"    {f'{f.file}: ' if f.file != location else ''}{f.what}" for f in group[:_FILES_SHOWN]]
    if len(group) > _FILES_SHOWN:
        lines.append(f"    and {len(group) - _FILES_SHOWN} more")
    lines += [f"    -> {hint}" for hint in dict.fromkeys(f.hint for f in group) if hint]
    return lines
