"""What was left out before anything was measured: images that a gate rejected, label maps that were not chosen."""

from __future__ import annotations

from dataclasses import replace

from anatogen.reporting.answers.base import Answer, Results, capital
from anatogen.reporting.tables import amount, counted, general, number, percent
from anatogen.reporting.verdicts import SELECTED_BY_COPIES

LABEL = "after selection"


def selection_in_words(results: Results) -> tuple[str, ...]:
    """Paragraphs for the top of the page and of the cards, none where nothing was left out."""
    found: Results = results.get("selection") or {}
    paragraphs = []
    if found:
        paragraphs.append(_gated(found) + _judge(results, found))
    if of_heldout := (results.get("utility") or {}).get("selection"):
        paragraphs.append(f"The images that usefulness was measured with were selected too. {_gated(of_heldout)}")
    maps = results.get("maps") or {}
    used, of = number(maps.get("used")), number(maps.get("of"))
    if used is not None and of is not None and used < of:
        names = [str(name) for name in results.get("split") or ()]
        of_split = f" of the split{'s' * (len(names) > 1)} {' and '.join(names)}" if names else ""
        paragraphs.append(f"A subset: the images follow {amount(used)} of the {counted(of, 'label map')}{of_split}.")
    return tuple(paragraphs)


def after_selection(answer: Answer, results: Results) -> Answer:
    """`answer`, said to be of selected images where it is."""
    part = results.get("utility") or {} if answer.section == "utility" else results
    found: Results = part.get("selection") or {}
    if not (found and answer.measured):
        return answer
    verdict = f"After selection: {answer.verdict[:1].lower()}{answer.verdict[1:]}"
    if answer.section == "privacy" and found.get("reject_copies") is not None:
        verdict += f" {SELECTED_BY_COPIES}"
    tables = tuple(
        replace(table, caption=f"{capital(LABEL)}: {table.caption[:1].lower()}{table.caption[1:]}")
        for table in answer.tables
    )
    return replace(answer, topic=f"{answer.topic} ({LABEL})", verdict=verdict, tables=tables)


def _gated(found: Results) -> str:
    asked = []
    if (least := found.get("min_dice")) is not None:
        asked.append(
            f"images in which a segmenter finds the given classes with a Dice of at least {general(least)} (--min-dice)"
        )
    if (level := found.get("reject_copies")) is not None:
        asked.append(
            f"images that lie no nearer to a training image than all but {percent(level)} of unseen patients' do (--reject-copies)"
        )
    without = number(found.get("requests_without_image")) or 0
    return (
        f"Selected images: a gate kept only {' and '.join(asked) or 'some images'}. "
        f"{counted(found.get('made'), 'image')} were made for {counted(found.get('requests'), 'request')}: "
        f"{amount(found.get('kept'))} kept, {amount(found.get('rejected'))} rejected"
        + (f"; {counted(without, 'request')} ended without an image" if without else "")
        + f". All numbers of these images are {LABEL}: they do not describe everything the model makes."
    )


def _judge(results: Results, found: Results) -> str:
    if found.get("min_dice") is None:
        return ""
    if (results.get("judge") or {}).get("independent_of_gate") is True:
        return " They are judged by a segmenter of another seed than the gate's, trained on the same held-out patients."
    return " They are judged by the gate's own segmenter."
