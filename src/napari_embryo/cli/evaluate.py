"""``evaluate``: how good a network is on annotated pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from napari_embryo import io
from napari_embryo.cli.evaluate_split import Part, choose
from napari_embryo.cli.terminal import (
    DeviceOption,
    Weights,
    check_out_file,
    console,
    make_folder,
    print_notes,
    print_table,
    readable_errors,
    writing,
)
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.families import DEFAULT, FAMILIES, FRAGMENT_CLASSES
from napari_embryo.image import Cells
from napari_embryo.notes import counted
from napari_embryo.settings import Layout, SegmentSettings

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.data import Sample
    from napari_embryo.evaluate import Judged
    from napari_embryo.models.checkpoint import Checkpoint
    from napari_embryo.predict import Predictor

T = TypeVar("T")

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
    family: Annotated[str, typer.Option(help="Family whose bundled weights are scored.")] = DEFAULT,
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
    count; of a shape code how exactly silhouettes are drawn back, and by how many codes.
    """
    from napari_embryo.models import checkpoint

    with readable_errors():
        asked = {"weights": weights, "device": device, "threshold": threshold, "views": views, "maps": ()}
        settings = SegmentSettings.model_validate(asked)
        if out is not None:
            check_out_file(out, ".csv")
        loaded = checkpoint.load(settings.weights, family)
        is_shape_code = FAMILIES[loaded.info.model.family].is_shape_code
        predictor = None if is_shape_code else _predictor(loaded, settings)
        choice = choose(loaded.info, data, split, embryo_table, layout)
        scored = _scored(choice.samples, predictor) if predictor else _drawn_back(loaded, choice.samples)
        tables = scored.tables()
    on = f" on {predictor.device}" if predictor else ""
    console.print(f"{weights} ({loaded.sha256[:12]}){on}: {choice.text}", markup=False)
    scored.print(tables)
    print_notes(predictor.notes if predictor else ())
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


def _predictor(loaded: "Checkpoint", settings: SegmentSettings) -> "Predictor":
    """Of any family that draws, unlike the one that segments."""
    from napari_embryo.evaluate import LEAST_SCORE
    from napari_embryo.predict import Predictor

    family = FAMILIES[loaded.info.model.family]
    if not family.draws:
        scored = [name for name, other in FAMILIES.items() if other.draws or other.is_shape_code]
        raise ValueError(
            f"{settings.weights}: a network of the family {family.name}, which draws no masks to score; needed are "
            f"weights of {' or '.join(scored)}"
        )
    if not family.finds_cells:
        return Predictor(loaded, settings)
    # All that it finds, wherever it lies: pictures of many cells, too, and cells that it is not sure of.
    return Predictor(loaded, settings.model_copy(update={"one_embryo": False}), least_score=LEAST_SCORE)


@dataclass(frozen=True, eq=False)
class Scored:
    """Masks of parts, ratios where fragments and embryo are found, single cells: whatever the network draws."""

    masks: "pd.DataFrame"
    ratios: "pd.DataFrame"
    cells: "Sequence[Judged]"
    usual_ratio: float | None = None

    def tables(self) -> "dict[str, pd.DataFrame]":
        """What is written, by what is added to the file's name."""
        import pandas as pd

        from napari_embryo import evaluate as metrics

        if self.cells:
            return {"": metrics.cell_rows(self.cells), "_summary": pd.DataFrame(_cell_summaries(self.cells))}
        told = {} if self.ratios.empty else {"_ratios": self.ratios}
        return {"": self.masks, **told}

    def print(self, tables: "Mapping[str, pd.DataFrame]") -> None:
        """Means and intervals."""
        if not self.masks.empty:
            _print_scores(self.masks)
        if not self.ratios.empty:
            _print_ratios(self.ratios, self.usual_ratio)
        if self.cells:
            _print_cells(tables["_summary"])


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
            found = next(predictor.predict([truth.image])).finding
            if isinstance(found, Cells):
                cells += [metrics.judge_cells(sample, truth.cells, found)] if len(truth.cells) else []
                continue
            tables += metrics.score([sample], _always(found.masks), predictor.classes).to_dict("records")
            if is_fragmented:
                ratios += metrics.score_ratios([sample], _always(found)).to_dict("records")
    usual = predictor.info.provenance.get("usual_ratio")
    scored = Scored(pd.DataFrame(tables), pd.DataFrame(ratios), cells, usual)
    if scored.masks.empty and scored.ratios.empty and not cells:
        classes = ", ".join(predictor.classes)
        given = counted(len(samples), "picture")
        raise ValueError(f"none of {classes} is drawn on the {given} given; needed are pictures with such masks")
    return scored


@dataclass(frozen=True)
class DrawnBack:
    """What a shape code makes of silhouettes: a row each, the share of its codes in use, their perplexity."""

    silhouettes: "pd.DataFrame"
    in_use: float
    perplexity: float

    def tables(self) -> "dict[str, pd.DataFrame]":
        """What is written."""
        return {"": self.silhouettes}

    def print(self, tables: "Mapping[str, pd.DataFrame]") -> None:
        """Means and intervals."""
        from napari_embryo import evaluate as metrics

        ious, embryos = tables[""]["iou"].to_numpy(float), tables[""]["embryo"].to_numpy(str)
        low, high = metrics.bootstrap_interval(ious, embryos)
        row = {
            "silhouettes": str(len(ious)),
            "embryos": str(len(set(embryos))),
            "IoU": f"{ious.mean():.3f}",
            "95 %": _interval({"iou_low": low, "iou_high": high}, "iou"),
            "codes in use": f"{self.in_use:.0%}",
            "perplexity": f"{self.perplexity:.0f}",
        }
        print_table([row])
        console.print(
            "IoU: of silhouettes in shaken boxes with what their codes are drawn back as; 95 %: bootstrap over embryos",
            style="dim",
        )


def _drawn_back(loaded: "Checkpoint", samples: "Sequence[Sample]") -> DrawnBack:
    from napari_embryo.train.silhouette_dataset import draw_back

    return DrawnBack(*draw_back(loaded.model, samples))


def _cell_summaries(cells: "Sequence[Judged]") -> list[dict[str, Any]]:
    """Of every source, where there are several, and of all."""
    from napari_embryo import evaluate as metrics

    sources = sorted({one.source for one in cells})
    by_source = {source: [one for one in cells if one.source == source] for source in sources}
    parts = {**(by_source if len(sources) > 1 else {}), "all": cells}
    return [{"source": source, **metrics.cell_summary(own)} for source, own in parts.items()]


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
    """Empty where there is nothing to tell it from, or one embryo alone."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low != low else f"{low:.3f}-{high:.3f}"


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
        "95 %": _interval(row, "iou"),
        "IoU pooled": f"{row['iou_pooled']:.3f}",
        "Dice": f"{row['dice']:.3f}",
        "Dice pooled": f"{row['dice_pooled']:.3f}",
    }
