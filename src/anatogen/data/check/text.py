"""The report as lines for a terminal: findings of one kind folded into a few lines, with counts."""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.data.check.findings import SEVERITIES, CheckReport, Finding

_FILES_SHOWN = 3
_CLASSES_SHOWN = 12


def as_text(report: CheckReport) -> str:
    """The whole report, the verdict last."""
    layout = f"{report.layout}, " if report.layout else ""
    lines = [f"{report.location}: {layout}{report.cases} cases of {report.patients} patients", *_classes(report)]
    for severity in SEVERITIES:
        groups = [g for g in report.groups() if g[0].severity == severity]
        if groups:
            lines += ["", f"{severity}s" if len(groups) > 1 else severity]
        for group in groups:
            lines += _folded(group)
    return "\n".join([*lines, "", verdict(report)])


def verdict(report: CheckReport) -> str:
    """One line: whether it is fit to train on, and how much was found."""
    counts = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s in SEVERITIES if (n := report.count(s)))
    fixable = sum(f.fixable for f in report.findings)
    mend = f"; --fix OUT writes a copy with {fixable} of them mended" if fixable else ""
    return f"{'Fit to train on' if report.fit else 'NOT fit to train on'}: {counts or 'nothing found'}{mend}."


def _classes(report: CheckReport) -> list[str]:
    used = [c for c in report.classes if c.patients]
    width = max((len(c.name) for c in used[:_CLASSES_SHOWN]), default=0)
    lines = []
    for c in used[:_CLASSES_SHOWN]:
        low, middle, high = (f"{share:.3%}" for share in c.per_patient)
        lines.append(
            f"  class {c.index:3} {c.name:{width}}  {c.share:8.3%} of voxels, in {c.patients} of {c.annotated} patients "
            f"({low} to {high}, median {middle})"
        )
    if len(used) > _CLASSES_SHOWN:
        lines.append(f"  and {len(used) - _CLASSES_SHOWN} more classes")
    return lines


def _folded(group: Sequence[Finding]) -> list[str]:
    """One kind of finding: a few of its files, how many more, and each different remedy once."""
    lines = [f"  {group[0].code}{f' ({len(group)})' if len(group) > 1 else ''}"]
    lines += [f"    {finding.file}: {finding.what}" for finding in group[:_FILES_SHOWN]]
    if len(group) > _FILES_SHOWN:
        lines.append(f"    and {len(group) - _FILES_SHOWN} more")
    lines += [f"    -> {remedy}" for remedy in dict.fromkeys(f.remedy for f in group) if remedy]
    return lines
