"""Report on the data of a training run, before it starts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_embryo.data.sample import Contents, Found, Sample, Skipped
from napari_embryo.data.split import Split, judging_alone
from napari_embryo.notes import counted
from napari_embryo.settings import DataSettings

_SHOWN_NAMES = 3
_WIDEST_REASON = 160
_USUAL = DataSettings()


@dataclass(frozen=True)
class Report:
    """Counts by source and part.

    Parameters
    ----------
    rows
        One mapping per source and part, for a table: source, part, images, embryos, per class ``known NAME`` (on how
        many images it is annotated), cells, graded (how many have a grade or a ratio), empty (how many are known to
        show no embryo).
    skipped
        What is not used, and why.
    notes
        What a user should know about the split and about how the pictures were read.
    """

    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A plain table with what was skipped below it."""
        return "\n".join([*_table(self.rows), *self.notes, *skipped_lines(self.skipped)])


def report(found: Found, split: Split, classes: Sequence[str], settings: DataSettings = _USUAL) -> Report:
    """Count the images, embryos and annotated classes of every source on every side of the split."""
    everything = [sample for part in split.parts.values() for sample in part]
    contents = {s: found.contents.get(s) or Contents.of(s.read(), classes) for s in everything}
    sources = sorted({sample.source for sample in contents})
    rows = [
        _row(source, part, [s for s in samples if s.source == source], contents, classes)
        for source in sources
        for part, samples in split.parts.items()
        if samples
    ]
    totals = [_row("all", part, samples, contents, classes) for part, samples in split.parts.items() if samples]
    notes = (*_notes(found, split, settings), *_unknown(contents, classes), *found.notes)
    return Report(tuple(rows + totals if len(sources) > 1 else rows), found.skipped, notes)


def _unknown(contents: Mapping[Sample, Contents], classes: Sequence[str]) -> Iterator[str]:
    """Classes annotated on no image of a source that annotates others."""
    known: dict[str, set[str]] = defaultdict(set)
    for sample, held in contents.items():
        known[sample.source] |= {name for name, is_known in zip(classes, held.known, strict=False) if is_known}
    for source, names in sorted(known.items()):
        lacking = [name for name in classes if name not in names]
        if names and lacking:
            yield f"{source}: no image shows {' or '.join(lacking)}; taken as not annotated, not as absent."


def _row(
    source: str, part: str, samples: Sequence[Sample], contents: Mapping[Sample, Contents], classes: Sequence[str]
) -> dict[str, Any]:
    held = [contents[sample] for sample in samples]
    return {
        "source": source,
        "part": part,
        "images": len(samples),
        "embryos": len({sample.embryo for sample in samples}),
        **{f"known {name}": sum(each.known[i] for each in held) for i, name in enumerate(classes)},
        "cells": sum(each.cells for each in held),
        "graded": sum(each.graded for each in held),
        "empty": sum(each.empty for each in held),
    }


def _notes(found: Found, split: Split, settings: DataSettings) -> tuple[str, ...]:
    judging = judging_alone(found.samples, settings)
    by_source: dict[str, set[str]] = defaultdict(set)
    for sample in found.samples:
        by_source[sample.source].add(sample.embryo)
    notes = []
    for source in sorted(by_source.keys() - set(settings.only_validation)):
        has_own, shared = bool(by_source[source] - judging), by_source[source] & judging
        if has_own and source not in settings.only_train and (lacking := _lacking(source, split, settings)):
            notes.append(f"{source}: too few embryos; none of them in {' and '.join(lacking)}.")
        if shared:
            where = "left out" if source in settings.only_train else "in validation"
            judges = ", ".join(settings.only_validation)
            notes.append(
                f"{source}: {counted(len(shared), 'embryo')} also in {judges}; {where}, not used for training."
            )
    return tuple(notes)


def _lacking(source: str, split: Split, settings: DataSettings) -> list[str]:
    """Parts that contain nothing of the source although a share of it was requested."""
    no_share = settings.only_validation and not (settings.validation or settings.folds)
    asked = {name: part for name, part in split.parts.items() if part and not (name == "validation" and no_share)}
    return [name for name, part in asked.items() if all(s.source != source for s in part)]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words are aligned left and numbers right; columns of zeros are left out."""
    columns = [key for key in rows[0] if any(row[key] for row in rows) or key.startswith("known")] if rows else []
    lines = [[*columns], *[[str(row[key]) for key in columns] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [i < 2 for i in range(len(columns))]
    return [
        "  ".join(
            c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    ]


def skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    """One line per reason, with the first names."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in skipped:
        by_reason[" ".join(each.reason.split())].append(each.name)
    lines = [f"Skipped: {len(skipped)}"] if skipped else []
    for reason, names in by_reason.items():
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        short = reason if len(reason) <= _WIDEST_REASON else f"{reason[: _WIDEST_REASON - 3]}..."
        lines.append(f"  {', '.join(names[:_SHOWN_NAMES])}{more}: {short}")
    return lines
