"""Choose the images to score weights on, avoiding those they were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_embryo.families import FAMILIES, Family
from napari_embryo.notes import counted
from napari_embryo.settings import DataSettings, Layout

if TYPE_CHECKING:
    from napari_embryo.data import Found, Sample
    from napari_embryo.models.checkpoint import CheckpointInfo

Part = Literal["train", "validation", "test", "all"]


def choose(
    info: "CheckpointInfo", folders: Sequence[Path], part: Part | None, table: Path | None, layout: Layout | None
) -> "Choice":
    """The images to score.

    Raises
    ------
    ValueError
        If there are none in this part of the split.
    """
    from napari_embryo import data

    provenance = info.provenance
    trained, kept = provenance.get("recipe", {}).get("data"), data.kept_parts(provenance)
    given = Given(tuple(folders), table, layout, info.model.classes, trained)
    choice = _by_list(given, part, kept) if kept else _split_anew(given, part)
    if not choice.samples:
        raise ValueError(f"--split {choice.part}: this part of the split has no images; choose another one, or all")
    return choice


@dataclass(frozen=True)
class Given:
    """The request, and the data settings that the weights were trained with."""

    folders: tuple[Path, ...]
    table: Path | None
    layout: Layout | None
    classes: tuple[str, ...]
    trained: dict[str, Any] | None

    @property
    def is_known(self) -> bool:
        """Whether a folder of one of these names was used for validation in training."""
        told = self.trained or {}
        judged = {Path(name).name for name in told.get("folders", ())} - set(told.get("only_train", ()))
        return not judged.isdisjoint(folder.resolve().name for folder in self.folders)


@dataclass(frozen=True, eq=False)
class Choice:
    """The images to score, out of how many, why these, and further notes on the folders."""

    part: Part
    why: str
    samples: Sequence["Sample"]
    count: int
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        said = f"{self.part}: {len(self.samples)} of {counted(self.count, 'image')} ({self.why})"
        return "\n".join((said, *self.notes))


def _by_list(given: Given, part: Part | None, kept: Mapping[str, str]) -> Choice:
    """Choose by the embryos that the weights list."""
    from napari_embryo import data

    samples, notes = _named_as_trained(given, needs_table=part != "all" and given.is_known)
    parts = [kept.get(data.digest(sample.embryo)) for sample in samples]
    was_used = not {"train", "validation"}.isdisjoint(parts)
    usual: tuple[Part, str] = (
        ("validation", "the weights were trained on images of these embryos; --split all scores everything")
        if was_used
        else ("all", "the weights were trained on none of these embryos")
    )
    part, why = (part, "as asked for") if part else usual
    chosen = [sample for sample, its in zip(samples, parts, strict=True) if part in ("all", its)]
    return Choice(part, why, chosen, len(samples), notes)


def _named_as_trained(given: Given, needs_table: bool) -> tuple[list["Sample"], tuple[str, ...]]:
    """The images found, with embryos named as in training; images of other folders may not match."""
    from napari_embryo import data

    trained = _data_settings(given, given.trained if given.is_known else None, needs_table)
    table = str(given.table) if given.table else ""
    plain = trained.model_copy(update={"embryo_pattern": "", "embryo_table": table})
    found, notes = _found(plain, given)
    pattern = (given.trained or {}).get("embryo_pattern", "")
    embryos = data.Embryos.of(plain.model_copy(update={"embryo_pattern": pattern}))
    return [replace(sample, embryo=embryos.name(sample.name, sample.embryo)) for sample in found.samples], notes


def _found(settings: DataSettings, given: Given) -> tuple["Found", tuple[str, ...]]:
    """What is in the folders, what could be read differently, and what was skipped."""
    from napari_embryo import data
    from napari_embryo.data.layouts import layout_doubts
    from napari_embryo.data.report import skipped_lines

    try:
        found = data.find_samples(settings, given.classes)
    except ValueError as error:
        raise ValueError("\n".join((str(error), *_others_said(settings, given.classes)))) from error
    return found, (*layout_doubts(settings, given.classes), *found.notes, *skipped_lines(found.skipped))


def _others_said(settings: DataSettings, asked: Sequence[str]) -> tuple[str, ...]:
    """A hint at the families that could be scored on images without annotations of the requested classes."""
    there = [
        f"{family.finds} (--family {name})"
        for name, family in FAMILIES.items()
        if family.draws and family.ships and _can_judge(family, settings, asked)
    ]
    said = f"These images have annotated {' and '.join(there)}; name the family whose weights to score"
    return (said,) if there else ()


def _can_judge(family: Family, settings: DataSettings, asked: Sequence[str]) -> bool:
    """Whether the first of a family's classes is annotated, unless they are the requested ones."""
    from napari_embryo import data

    classes = family.settings.model_fields["classes"].default
    if not set(classes).isdisjoint(asked):
        return False
    try:
        contents = data.find_samples(settings, classes, cells=family.needs_cells).contents.values()
    except ValueError:
        return False
    return family.needs_cells or any(one.known[0] for one in contents)


def _split_anew(given: Given, part: Part | None) -> Choice:
    """Split by the same settings, for weights that list no embryos; another version may have split differently."""
    from napari_embryo import data

    part, why = (part, "as asked for") if part else _usual_part(given)
    settings = _data_settings(given, given.trained if part != "all" else None, needs_table=True)
    found, notes = _found(settings, given)
    samples, count = found.samples, len(found.samples)
    if part == "all":
        return Choice(part, why, samples, count, notes)
    return Choice(part, f"{why}; {_ANEW}", getattr(data.split(samples, settings), part), count, notes)


_ANEW = "split again, because the weights list no embryos: some may have been used for training"


def _usual_part(given: Given) -> tuple[Part, str]:
    """Choose images that were not used for training, as far as known."""
    if given.trained is None:
        return "all", "the weights do not record their training data"
    if given.is_known:
        return "validation", "folders of these names were trained on; --split all scores everything"
    others = ", ".join(given.trained["folders"])
    return "all", f"trained on the folders {others}; if these images were among them, use --split validation"


def _data_settings(given: Given, trained: dict[str, Any] | None, needs_table: bool) -> DataSettings:
    """The data settings of the training, with these folders."""
    folders = [str(folder) for folder in given.folders]
    said = {**(trained or {}), "folders": folders, "repeats": {}, "only_train": (), "only_validation": ()}
    if given.layout is not None:
        said["layout"] = given.layout
    if given.table is not None:
        said["embryo_table"] = str(given.table)
    elif said.get("embryo_table") and needs_table:
        raise ValueError(f"the split was made with the table {said['embryo_table']}; name it with --embryo-table")
    return DataSettings.model_validate(said)
