"""``evaluate``: score a network on annotated images."""

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

DataFolders = Annotated[list[Path], typer.Option("--data", help="Folder of annotated images; repeatable.")]


def evaluate(
    weights: Weights,
    data: DataFolders,
    out: Annotated[
        Path | None,
        typer.Option(
            help="CSV file to write, one row per image and class; for fragmentation ratios also NAME_ratios.csv, one "
            "row per image. For single cells: one row per image, and NAME_summary.csv."
        ),
    ] = None,
    split: Annotated[
        Part | None,
        typer.Option(
            help="Part of the split that the weights were trained with. Default: validation if they were trained on "
            "embryos given here, otherwise all."
        ),
    ] = None,
    family: Annotated[str, typer.Option(help="Family of the bundled weights to score.")] = DEFAULT,
    device: DeviceOption = "auto",
    threshold: Annotated[float, typer.Option(help="Probability from which a pixel belongs to a class.")] = 0.5,
    views: Annotated[int, typer.Option(help="Average over 2, 4 or 8 mirrored and rotated views.")] = 1,
    embryo_table: Annotated[
        Path | None, typer.Option(help="CSV with the columns image and embryo, instead of the one used in training.")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="Layout of the annotations, instead of the one detected or used in training.")
    ] = None,
) -> None:
    """Score weights on annotated images, with 95 % intervals over embryos.

    IoU and Dice per class; for fragments also their ratio; for single cells average precision, best IoU and counts; for
    a shape code the accuracy of reconstructed silhouettes and the codes in use.
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
    """Write every table; the first one is ``out``, the others are next to it."""
    paths = {name: out.with_name(f"{out.stem}{name}{out.suffix}") for name in tables}
    with readable_errors():
        make_folder(out.absolute().parent)
        with writing(out):
            for name, path in paths.items():
                io.write_csv_atomic(path, tables[name].to_dict("records"))
    console.print(f"written: {', '.join(str(path.resolve()) for path in paths.values())}", markup=False)


def _predictor(loaded: "Checkpoint", settings: SegmentSettings) -> "Predictor":
    """Load a predictor for any family that can be scored."""
    from napari_embryo.evaluate import LEAST_SCORE
    from napari_embryo.predict import Predictor

    family = FAMILIES[loaded.info.model.family]
    if not family.draws:
        scored = [name for name, other in FAMILIES.items() if other.draws or other.is_shape_code]
        raise ValueError(
            f"{settings.weights}: a network of the family {family.name}, which draws no masks to score; use weights "
            f"of {' or '.join(scored)}"
        )
    if not family.finds_cells:
        return Predictor(loaded, settings)
    # Everything it finds, including several groups of cells and uncertain cells.
    return Predictor(loaded, settings.model_copy(update={"one_embryo": False}), least_score=LEAST_SCORE)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of what the network draws: masks of parts, ratios for fragments and embryo, or single cells."""

    masks: "pd.DataFrame"
    ratios: "pd.DataFrame"
    cells: "Sequence[Judged]"
    usual_ratio: float | None = None

    def tables(self) -> "dict[str, pd.DataFrame]":
        """Tables to write, by the suffix of the file name."""
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
    """Score every image in a single pass."""
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
        given = counted(len(samples), "image")
        raise ValueError(f"none of {classes} is annotated on the {given} given; use images with such masks")
    return scored


@dataclass(frozen=True)
class DrawnBack:
    """Scores of a shape code: a row per silhouette, the share of codes in use, and their perplexity."""

    silhouettes: "pd.DataFrame"
    in_use: float
    perplexity: float

    def tables(self) -> "dict[str, pd.DataFrame]":
        """Tables to write."""
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
            "IoU: of silhouettes in jittered boxes with their reconstructions; 95 %: bootstrap over embryos",
            style="dim",
        )


def _drawn_back(loaded: "Checkpoint", samples: "Sequence[Sample]") -> DrawnBack:
    from napari_embryo.train.silhouette_dataset import draw_back

    return DrawnBack(*draw_back(loaded.model, samples))


def _cell_summaries(cells: "Sequence[Judged]") -> list[dict[str, Any]]:
    """A row for every source, if there are several, and one for all."""
    from napari_embryo import evaluate as metrics

    sources = sorted({one.source for one in cells})
    by_source = {source: [one for one in cells if one.source == source] for source in sources}
    parts = {**(by_source if len(sources) > 1 else {}), "all": cells}
    return [{"source": source, **metrics.cell_summary(own)} for source, own in parts.items()]


def _print_cells(summaries: "pd.DataFrame") -> None:
    print_table([_cells_cells(row) for row in summaries.to_dict("records")])
    console.print(
        "AP: COCO mask AP of complete masks, mean over IoU .50:.05:.95; best IoU: of every true cell with the "
        "best-fitting found one; count right: share of images with the right number of cells; 95 %: bootstrap over "
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
    """An interval as text; empty if undefined, as for a single embryo."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low != low else f"{low:.3f}-{high:.3f}"


def _always(answer: T) -> Callable[[Any], T]:
    return lambda _: answer


def _print_ratios(ratios: "pd.DataFrame", usual: float | None) -> None:
    """Errors of the fragmentation ratio, and those of always answering the median."""
    from napari_embryo import evaluate as metrics

    whose = "training images" if usual is not None else "scored images"
    print_table([_ratio_cells(row) for row in metrics.ratio_summary(ratios, usual).to_dict("records")])
    console.print(
        "ratio: fragments over cells and fragments; MAE: mean absolute error; bias: mean difference; median: always "
        f"the median of the {whose}",
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
        "IoU, Dice: mean over images; pooled: over all their pixels; 95 %: bootstrap over embryos", style="dim"
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
