"""``evaluate`` and ``reproduce``: how good a network is on annotated pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from napari_embryo import io
from napari_embryo.cli.segmenting import print_notes
from napari_embryo.cli.terminal import (
    DeviceOption,
    Weights,
    check_out_file,
    check_out_folder,
    complain,
    console,
    make_folder,
    print_table,
    readable_errors,
    writing,
)
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.data.reporting import counted
from napari_embryo.image import Progress
from napari_embryo.settings import FRAGMENT_CLASSES, OF_CELLS, DataSettings, Layout, SegmentSettings

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.data import Found, Sample
    from napari_embryo.evaluate import Judged
    from napari_embryo.predict import Predictor

T = TypeVar("T")
Part = Literal["train", "validation", "test", "all"]
REPRODUCTIONS = Path("napari-embryo-reproductions")

DataFolders = Annotated[list[Path], typer.Option("--data", help="Folder of annotated pictures; repeatable.")]


def evaluate(
    weights: Weights,
    data: DataFolders,
    out: Annotated[
        Path | None,
        typer.Option(
            help="CSV to write, one row per picture and class. Beside it NAME_ratios.csv, one row per picture, where "
            "ratios are told. Of single cells: one row per picture, and NAME_summary.csv."
        ),
    ] = None,
    split: Annotated[
        Part | None,
        typer.Option(
            help="Which part of the split that the weights were trained with. Where nothing is said: validation, where "
            "they were trained on embryos given here, else all."
        ),
    ] = None,
    family: Annotated[str, typer.Option(help="Whose bundled weights.")] = "resanet",
    device: DeviceOption = "auto",
    threshold: Annotated[float, typer.Option(help="Probability from which a pixel belongs to a class.")] = 0.5,
    views: Annotated[int, typer.Option(help="Average over 2, 4 or 8 mirrored and turned views.")] = 1,
    embryo_table: Annotated[
        Path | None, typer.Option(help="CSV with the columns image and embryo, instead of the one trained with.")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="How the annotations lie on the disk, instead of looking, or as trained with.")
    ] = None,
) -> None:
    """Score weights on annotated pictures, with 95 % intervals over embryos.

    IoU and Dice per class; of fragments their ratio, too; of single cells the average precision, the best IoU and the
    count.
    """
    with readable_errors():
        asked = {"weights": weights, "device": device, "threshold": threshold, "views": views, "maps": ()}
        settings = SegmentSettings.model_validate(asked)
        if out is not None:
            check_out_file(out, ".csv")
        predictor = _predictor(settings, family)
        choice = _chosen(predictor, data, split, embryo_table, layout)
        scored = _scored(choice.samples, predictor)
        tables = scored.tables()
    console.print(f"{weights} ({predictor.sha256[:12]}) on {predictor.device}: {choice.text}", markup=False)
    if not scored.masks.empty:
        _print_scores(scored.masks)
    if not scored.ratios.empty:
        _print_ratios(scored.ratios, predictor.info.provenance.get("usual_ratio"))
    if scored.cells:
        _print_cells(tables["_summary"])
    print_notes(predictor.notes)
    if out is not None:
        _write_scores(out, tables)


def _write_scores(out: Path, tables: "Mapping[str, pd.DataFrame]") -> None:
    """Every table beside the first one, whose name is that of ``out``."""
    paths = {name: out.with_name(f"{out.stem}{name}{out.suffix}") for name in tables}
    with readable_errors():
        make_folder(out.absolute().parent)
        with writing(out):
            for name, path in paths.items():
                io.write_csv_atomic(path, tables[name].to_dict("records"))
    console.print(f"written: {', '.join(str(path.resolve()) for path in paths.values())}", markup=False)


def _predictor(settings: SegmentSettings, family: str) -> "Predictor":
    """Of any family that draws, unlike the one that segments."""
    from napari_embryo.evaluate import LEAST_SCORE
    from napari_embryo.models import DECODERS, checkpoint
    from napari_embryo.predict import Predictor

    loaded = checkpoint.load(settings.weights, family)
    if loaded.info.model.family not in DECODERS:
        raise ValueError(
            f"{settings.weights}: a network of the family {loaded.info.model.family}, which draws no masks to score; "
            f"give weights of {' or '.join(DECODERS)}"
        )
    if loaded.info.model.family not in OF_CELLS:
        return Predictor(loaded, settings)
    # All that it finds, wherever it lies: pictures of many cells, too, and cells that it is not sure of.
    return Predictor(loaded, settings.model_copy(update={"one_embryo": False}), least_score=LEAST_SCORE)


def _chosen(
    predictor: "Predictor", folders: Sequence[Path], part: Part | None, table: Path | None, layout: Layout | None
) -> "Choice":
    """The pictures to score."""
    from napari_embryo import data

    provenance = predictor.info.provenance
    trained, kept = provenance.get("recipe", {}).get("data"), data.kept_parts(provenance)
    given = Given(tuple(folders), table, layout, predictor.classes, trained)
    choice = _by_list(given, part, kept) if kept else _split_anew(given, part)
    if not choice.samples:
        raise ValueError(f"--split {choice.part}: this part of the split has no picture; choose another one, or all")
    return choice


@dataclass(frozen=True)
class Given:
    """What was asked for, and the data settings that the weights were trained with."""

    folders: tuple[Path, ...]
    table: Path | None
    layout: Layout | None
    classes: tuple[str, ...]
    trained: dict[str, Any] | None

    @property
    def is_known(self) -> bool:
        """Whether a folder of one of these names was judged by in training."""
        told = self.trained or {}
        judged = {Path(name).name for name in told.get("folders", ())} - set(told.get("only_train", ()))
        return not judged.isdisjoint(folder.resolve().name for folder in self.folders)


@dataclass(frozen=True, eq=False)
class Choice:
    """The pictures to score, out of how many, why these, and what else a user should know of the folders."""

    part: Part
    why: str
    samples: Sequence["Sample"]
    count: int
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        said = f"{self.part}: {len(self.samples)} of {counted(self.count, 'picture')} ({self.why})"
        return "\n".join((said, *self.notes))


def _by_list(given: Given, part: Part | None, kept: Mapping[str, str]) -> Choice:
    """By the embryos that the weights list."""
    from napari_embryo import data

    samples, notes = _named_as_trained(given, needs_table=part != "all" and given.is_known)
    parts = [kept.get(data.digest(sample.embryo)) for sample in samples]
    was_used = not {"train", "validation"}.isdisjoint(parts)
    usual: tuple[Part, str] = (
        ("validation", "the weights were trained on pictures of these embryos; --split all scores everything")
        if was_used
        else ("all", "the weights were trained on none of these embryos")
    )
    part, why = (part, "as asked for") if part else usual
    chosen = [sample for sample, its in zip(samples, parts, strict=True) if part in ("all", its)]
    return Choice(part, why, chosen, len(samples), notes)


def _named_as_trained(given: Given, needs_table: bool) -> tuple[list["Sample"], tuple[str, ...]]:
    """The pictures there, their embryos named as they were in training; of other folders that may fit none."""
    from napari_embryo import data

    trained = _data_settings(given, given.trained if given.is_known else None, needs_table)
    table = str(given.table) if given.table else ""
    plain = trained.model_copy(update={"embryo_pattern": "", "embryo_table": table})
    found, notes = _found(plain, given)
    pattern = (given.trained or {}).get("embryo_pattern", "")
    embryos = data.Embryos.of(plain.model_copy(update={"embryo_pattern": pattern}))
    return [replace(sample, embryo=embryos.name(sample.name, sample.embryo)) for sample in found.samples], notes


def _found(settings: DataSettings, given: Given) -> tuple["Found", tuple[str, ...]]:
    """What lies in the folders; what could be read otherwise, and what was skipped."""
    from napari_embryo import data
    from napari_embryo.data.finding import layout_doubts
    from napari_embryo.data.reporting import skipped_lines

    found = data.find_samples(settings, given.classes)
    return found, (*layout_doubts(settings, given.classes), *skipped_lines(found.skipped))


def _split_anew(given: Given, part: Part | None) -> Choice:
    """By the same settings, for weights that list no embryos; another version may have split otherwise."""
    from napari_embryo import data

    part, why = (part, "as asked for") if part else _usual_part(given)
    settings = _data_settings(given, given.trained if part != "all" else None, needs_table=True)
    found, notes = _found(settings, given)
    samples, count = found.samples, len(found.samples)
    if part == "all":
        return Choice(part, why, samples, count, notes)
    return Choice(part, f"{why}; {_ANEW}", getattr(data.split(samples, settings), part), count, notes)


_ANEW = "split anew, as the weights list no embryos: some may have been learned from"


def _usual_part(given: Given) -> tuple[Part, str]:
    """Never what was learned from, as far as the weights tell."""
    if given.trained is None:
        return "all", "the weights do not say what they were trained on"
    if given.is_known:
        return "validation", "folders of these names were trained on; --split all scores everything"
    others = ", ".join(given.trained["folders"])
    return "all", f"trained on the folders {others}; if these pictures were among them, say --split validation"


def _data_settings(given: Given, trained: dict[str, Any] | None, needs_table: bool) -> DataSettings:
    """As trained with, on these folders."""
    folders = [str(folder) for folder in given.folders]
    said = {**(trained or {}), "folders": folders, "repeats": {}, "only_train": (), "only_validation": ()}
    if given.layout is not None:
        said["layout"] = given.layout
    if given.table is not None:
        said["embryo_table"] = str(given.table)
    elif said.get("embryo_table") and needs_table:
        raise ValueError(f"the split was made with the table {said['embryo_table']}; name it with --embryo-table")
    return DataSettings.model_validate(said)


@dataclass(frozen=True, eq=False)
class Scored:
    """Masks of parts, ratios where fragments and embryo are found, single cells: whatever the network draws."""

    masks: "pd.DataFrame"
    ratios: "pd.DataFrame"
    cells: "Sequence[Judged]"

    def tables(self) -> "dict[str, pd.DataFrame]":
        """What is written, by what is added to the file's name."""
        import pandas as pd

        from napari_embryo import evaluate as metrics

        if self.cells:
            return {"": metrics.cell_rows(self.cells), "_summary": pd.DataFrame(_cell_summaries(self.cells))}
        told = {} if self.ratios.empty else {"_ratios": self.ratios}
        return {"": self.masks, **told}


def _scored(samples: Sequence["Sample"], predictor: "Predictor") -> Scored:
    """Every picture is looked at once."""
    import pandas as pd

    from napari_embryo import evaluate as metrics

    tables: list[dict[Any, Any]] = []
    ratios: list[dict[Any, Any]] = []
    cells: list[Judged] = []
    is_fragmented = set(FRAGMENT_CLASSES) <= set(predictor.classes)
    with make_bar() as bar:
        for sample in bar.track(samples, description="pictures"):
            truth = sample.read()
            found = next(predictor.predict([truth.image])).segmentation
            if found.scores is not None:
                cells += [metrics.judge_cells(sample, truth.cells, found)] if len(truth.cells) else []
                continue
            tables += metrics.score([sample], _always(found.masks), predictor.classes).to_dict("records")
            if is_fragmented:
                ratios += metrics.score_ratios([sample], _always(found)).to_dict("records")
    scored = Scored(pd.DataFrame(tables), pd.DataFrame(ratios), cells)
    if scored.masks.empty and scored.ratios.empty and not cells:
        classes = ", ".join(predictor.classes)
        came = counted(len(samples), "picture")
        raise ValueError(f"none of {classes} is drawn on the {came} that came; give pictures with masks of it")
    return scored


def _cell_summaries(cells: "Sequence[Judged]") -> list[dict[str, Any]]:
    """Of every source, where there are several, and of all."""
    from napari_embryo import evaluate as metrics

    sources = sorted({one.source for one in cells})
    by_source = {source: [one for one in cells if one.source == source] for source in sources}
    parts = {**(by_source if len(sources) > 1 else {}), "all": cells}
    try:
        return [{"source": source, **metrics.cell_summary(own)} for source, own in parts.items()]
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error


def _print_cells(summaries: "pd.DataFrame") -> None:
    print_table([_cells_cells(row) for row in summaries.to_dict("records")])
    console.print(
        "AP: COCO's, of complete masks, mean over IoU .50:.05:.95; best IoU: of every true cell with the found one "
        "that fits best; count right: share of the pictures with as many cells as there are; 95 %: bootstrap over "
        "embryos",
        style="dim",
    )


def _cells_cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "cells": row["source"],
        "pictures": str(row["pictures"]),
        "embryos": str(row["embryos"]),
        "true cells": str(row["cells"]),
        "AP": _known(row["ap"]),
        "95 %": _interval(row, "ap"),
        "AP50": _known(row["ap50"]),
        "AP75": _known(row["ap75"]),
        "best IoU": _known(row["best_iou"]),
        "95 % ": _interval(row, "best_iou"),
        "count right": _known(row["count_right"]),
        "95 %  ": _interval(row, "count_right"),
        "up to 4 cells": _known(row["few_right"]),
        "95 %   ": _interval(row, "few_right"),
    }


def _interval(row: Mapping[str, Any], name: str) -> str:
    return "" if row[name] != row[name] else f"{row[f'{name}_low']:.3f}-{row[f'{name}_high']:.3f}"


def _always(answer: T) -> Callable[[Any], T]:
    return lambda _: answer


def _print_ratios(ratios: "pd.DataFrame", usual: float | None) -> None:
    """How near the fragmentation ratio comes, and what always saying the median would come to."""
    from napari_embryo import evaluate as metrics

    whose = "training pictures" if usual is not None else "pictures scored"
    print_table([_ratio_cells(row) for row in metrics.ratio_summary(ratios, usual).to_dict("records")])
    console.print(
        "ratio: fragments over cells or fragments; MAE: mean absolute error; bias: mean difference; median: always the "
        f"median of the {whose}",
        style="dim",
    )


def _ratio_cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "ratio": row["way"],
        "pictures": str(row["pictures"]),
        "MAE": _known(row["mae"]),
        "95 %": _interval(row, "mae"),
        "bias": _known(row["bias"], "+.3f"),
        "grades right": _known(row["grades_right"], ".2f"),
        "kappa": _known(row["kappa"], ".2f"),
    }


def _known(number: float, form: str = ".3f") -> str:
    return "" if number != number else format(number, form)


def _print_scores(scores: "pd.DataFrame") -> None:
    from napari_embryo import evaluate as metrics

    several = scores["source"].nunique() > 1
    rows = metrics.summary(scores, ["class", "source"]).to_dict("records") if several else []
    rows += metrics.summary(scores, ["class"]).assign(source="all").to_dict("records")
    print_table([_cells(row) for row in rows])
    console.print(f"mean IoU of the classes {scores.groupby('class')['iou'].mean().mean():.3f}")
    console.print(
        "IoU, Dice: mean over pictures; pooled: over all their pixels; 95 %: bootstrap over embryos", style="dim"
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "class": row["class"],
        "source": row["source"],
        "pictures": str(row["images"]),
        "embryos": str(row["embryos"]),
        "IoU": f"{row['iou']:.3f}",
        "95 %": f"{row['iou_low']:.3f}-{row['iou_high']:.3f}",
        "IoU pooled": f"{row['iou_pooled']:.3f}",
        "Dice": f"{row['dice']:.3f}",
        "Dice pooled": f"{row['dice_pooled']:.3f}",
    }


def reproduce(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="resanet-table1: U-Net and ResA-Net, one per class; regdeeplab-table2: the stages A to E of "
            "AttnRegDeepLab and what it is compared with; vqamodal-table1, -table2, -table3: Mask R-CNN's mask head "
            "against shape codes, the same beside ASN, and what each part adds.",
        ),
    ],
    data: Annotated[list[Path] | None, typer.Option("--data", help="Folder of annotated pictures; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the networks; {REPRODUCTIONS}/TABLE where nothing is said.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Few small drawn embryos: whether it runs, in minutes.")] = False,
    device: DeviceOption = "auto",
    backbone: Annotated[
        Path | None, typer.Option(help="ImageNet ResNet-50 (.safetensors) for ResA-Net's encoder, else random.")
    ] = None,
    encoder: Annotated[
        Literal["v1", "v1.5"], typer.Option(help="Whose: torchvision's (v1.5), or He et al.'s own (v1).")
    ] = "v1.5",
    seeds: Annotated[
        int, typer.Option(min=1, max=20, help="Every network so many times, for the spread: vqamodal's tables.")
    ] = 1,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most so many epochs of each network: less than the paper's protocol.")
    ] = None,
) -> None:
    """Train what a paper's table compares, by the paper's protocol, and print ours beside the published numbers.

    The same command goes on where it was stopped. Tables of vqamodal that are given the same --out share networks.
    """
    from napari_embryo import reproduce as papers

    folder = out or REPRODUCTIONS / (f"{what}-fast" if fast else what)
    with readable_errors():
        check_out_folder(folder)
        named = [str(d.absolute()) for d in data or []]
        protocol = papers.protocol(what, named, folder, fast, device, seeds, epochs)
        protocol = papers.from_imagenet(protocol, backbone.absolute(), encoder) if backbone else protocol
        try:
            scores = _reproduced(papers.run(protocol))
        except (ArithmeticError, MemoryError) as error:
            complain(f"{error}\nThe same command goes on from the last finished epoch")
            raise typer.Exit(1) from error
    paper = papers.TABLES[what]
    rows = paper.table(scores).to_dict("records")
    print_table(rows)
    with readable_errors(), writing(folder):
        io.write_csv_atomic(folder / "table.csv", rows)
    short = (
        "" if epochs is None else f"A shorter schedule than the protocol's: at most {epochs} epochs of each network."
    )
    told = (papers.FAST_NOTE if fast else "", short, "" if backbone else paper.without_backbone, *paper.notes)
    for note in filter(None, told):
        console.print(note, markup=False)
    console.print(f"networks, splits, scores and table.csv are in {folder.resolve()}", markup=False)


def _reproduced(steps: Any) -> "pd.DataFrame":
    with make_bar() as bar:
        task = bar.add_task("networks", total=None)
        try:
            while True:
                progress: Progress = next(steps)
                if progress.item is None:
                    bar.update(task, completed=progress.done, total=progress.total, description=progress.message)
                else:
                    bar.console.print(progress.message, markup=False)
        except StopIteration as end:
            scores: pd.DataFrame = end.value
            return scores
