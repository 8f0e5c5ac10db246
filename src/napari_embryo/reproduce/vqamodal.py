"""The three tables of the VQ shape-code paper: codes against Mask R-CNN's mask head, ASN, and an ablation."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_embryo import drawing, recipes
from napari_embryo.data import coco
from napari_embryo.data.official_split import part_of
from napari_embryo.image import Progress, as_cells
from napari_embryo.reproduce.engine import LAST, Job, PaperTable, span, trained
from napari_embryo.settings import Device, SegmentSettings

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.models.checkpoint import Checkpoint

SHAPE_CODE = "shape code"
FCN, VQ, ASN_FCN, ASN_VQ = "Mask R-CNN, FCN", "Mask R-CNN, VQ", "ASN, FCN", "ASN, VQ"
CODES, REFINED = "codes alone", "+ refinement"
FULL = "+ occlusion map"
"""Name of the whole network in the ablation."""

_FULL_RECIPE, _ASN_RECIPE = "vqamodal-from-imagenet", "vqamodal-asn"
_FCN_HEAD = {"model.head": "fcn", "model.refine": False}
RECIPES: dict[str, tuple[str, Mapping[str, Any]]] = {
    SHAPE_CODE: ("shapecode", {"augmentation.hide": 0}),
    FCN: ("vqamodal-fcn", {}),
    VQ: (_FULL_RECIPE, {}),
    ASN_FCN: (_ASN_RECIPE, _FCN_HEAD),
    ASN_VQ: (_ASN_RECIPE, {}),
    CODES: (_FULL_RECIPE, {"model.refine": False, "model.occlusion": "none"}),
    REFINED: (_FULL_RECIPE, {"model.occlusion": "none"}),
    FULL: (_FULL_RECIPE, {}),
}
"""The networks compared: a recipe and the changes to it."""
_SAME = {FULL: VQ}
"""Same network under another name, so that tables that use one output folder share it."""

EMBRYOS: Mapping[str, float] = {FCN: 66.5, VQ: 68.2}
KINS: Mapping[str, float] = {FCN: 29.3, VQ: 30.3, ASN_FCN: 31.1, ASN_VQ: 31.5}
ABLATION: Mapping[str, float] = {CODES: 28.1, REFINED: 29.8, FULL: 30.3}
"""Mask mAP in percent as printed in tables 1 (embryos), 2 and 3 (both KINS)."""

NOTES = (
    "All in percent. published: as printed in the VQ shape-code paper{on}, not reproduced.",
    "mAP: COCO mask AP of complete outlines, mean over IoU .50:.05:.95, on held-out images, with a 95 % bootstrap",
    "interval over embryos; for several seeds their mean and standard deviation. best IoU: of every true cell with",
    "the best-fitting found one (score of at least 0.5); counts: images with the right number of cells.",
    "reconstruction: IoU of held-out silhouettes in jittered boxes with what their codes are decoded to. All networks",
    "learn from the same images for the same number of epochs, and the last weights are used; the shape code was",
    "trained on the same cells. All categories are learned as one, so numbers on KINS are not the paper's mean over",
    "seven categories.",
)

FAST_PICTURES = 12
FAST_SHAPE = (96, 96)
_FAST: dict[str, Any] = {
    "preprocessing.height": 64,
    "preprocessing.width": 64,
    "training.epochs": 2,
    "training.learning_rate": 1e-3,
}
_FAST_SHAPES: dict[str, Any] = {"training.epochs": 20}

_AS_KINS_IS: dict[str, Any] = {
    "preprocessing.height": 384,
    "preprocessing.width": 1248,
    "preprocessing.look_again_below": 0,
    "model.translucent": False,
    "model.smallest_anchor": 0.04,
    "model.detections": 100,
    "augmentation.flips": False,
    "augmentation.rotation": 0,
    "augmentation.zoom_in": 1,
    "augmentation.zoom_out": 1,
    "augmentation.shift": 0,
    "augmentation.shear": 0,
    "augmentation.crop": 0,
    "training.epochs": 12,
}
"""Street scenes are wide, opaque, crowded and upright. 12 epochs is what the paper gives for its embryos."""
_KINS_SHAPES: dict[str, Any] = {"augmentation.rotation": 0, "training.epochs": 4}


def draw(folder: Path) -> Path:
    """Draw a few small embryos of overlapping cells."""
    return drawing.draw_cleavages(folder, FAST_PICTURES, FAST_SHAPE)


def _jobs_of(networks: Sequence[str]) -> "Callable[[Sequence[str], Path, bool, Device], tuple[Job, ...]]":
    """The jobs of a table: the shape code, and the networks with and without it."""

    def jobs(folders: Sequence[str], out: Path, fast: bool, device: Device) -> tuple[Job, ...]:
        is_kins = any(coco.fits_kins(Path(folder), ()) for folder in folders)
        common = {
            **(_as_distributed(folders) if is_kins else {"data.folders": list(folders)}),
            "training.device": device,
        }
        shapes = {**common, **(_KINS_SHAPES if is_kins else {}), **(_FAST_SHAPES if fast else {})}
        cells = {**common, **(_AS_KINS_IS if is_kins else {}), **(_FAST if fast else {})}
        return tuple(_job(name, out, shapes if name == SHAPE_CODE else cells) for name in (SHAPE_CODE, *networks))

    return jobs


def _as_distributed(folders: Sequence[str]) -> dict[str, Any]:
    """The official split of KINS if its files are in one folder: its test part is used for evaluation."""
    files = [path for folder in folders for path in coco.json_files(Path(folder))]
    learned = [path for path in files if part_of(path.stem) == "train"]
    judging = [path for path in files if part_of(path.stem) in ("test", "validation")]
    if not learned or not judging:
        return {"data.folders": list(folders)}
    return {
        "data.folders": [str(path) for path in (*learned, *judging)],
        "data.only_train": [path.name for path in learned],
        "data.only_validation": [path.name for path in judging],
    }


def _job(name: str, out: Path, changes: Mapping[str, Any]) -> Job:
    file, own = RECIPES[name]
    network = _SAME.get(name, name)
    folder = out / _folder(network)
    recipe = recipes.changed(recipes.read(file), {**changes, **own, "name": folder.name, "start": recipes.RANDOM}, file)
    if name == SHAPE_CODE:
        return Job(network, name, recipe, folder, _train_shapes, _shapes_said, can_be_shorter=False)
    model: Any = recipe.model
    learned = {"shape_code": str((out / _folder(SHAPE_CODE) / LAST).absolute())} if model.head == "vq" else {}
    # statistics of random weights mean nothing; those of ImageNet are kept
    recipe = recipes.changed(recipe, {**learned, "training.frozen_batch_norm": False})
    return Job(network, name, recipe, folder, _train, _said, pretrained={"training.frozen_batch_norm": True})


def _folder(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


# --- a job ----------------------------------------------------------------------------------------------------------


def _train(job: Job) -> "Generator[Progress, None, pd.DataFrame]":
    return trained(job, _score_network)


def _score_network(prepared: recipes.Prepared, loaded: "Checkpoint", device: Device) -> "pd.DataFrame":
    """One row per image, with the summary over all images repeated in each, as computed by ``evaluate``."""
    from napari_embryo import evaluate
    from napari_embryo.predict import Predictor

    settings = SegmentSettings(family="vqamodal", device=device, one_embryo=False, maps=())
    predictor = Predictor(loaded, settings, least_score=evaluate.LEAST_SCORE)
    judged = []
    for sample in prepared.split.validation:
        truth = sample.read()
        found = as_cells(next(predictor.predict([truth.image])).finding)
        judged.append(evaluate.judge_cells(sample, truth.cells, found))
    summary = evaluate.cell_summary(judged)
    told = {f"all_{name}": summary[name] for name in _OF_ALL}
    return evaluate.cell_rows(judged).assign(**told, seed=prepared.recipe.training.seed)


_OF_ALL = ("ap", "ap_low", "ap_high", "ap50", "ap75", "best_iou", "count_right")


def _said(scores: "pd.DataFrame") -> str:
    return f"mAP {100 * scores['all_ap'].iloc[0]:.1f}"


def _train_shapes(job: Job) -> "Generator[Progress, None, pd.DataFrame]":
    return trained(job, _score_shapes)


def _score_shapes(prepared: recipes.Prepared, loaded: "Checkpoint", device: Device) -> "pd.DataFrame":
    """One row per silhouette: IoU of its reconstruction in a jittered box, and the codes in use."""
    from napari_embryo.train.silhouette_dataset import draw_back

    cells, share, perplexity = draw_back(loaded.model, prepared.split.validation)
    return cells.assign(in_use=share, perplexity=perplexity, seed=prepared.recipe.training.seed)


def _shapes_said(scores: "pd.DataFrame") -> str:
    first = scores.iloc[0]
    return f"IoU {100 * scores['iou'].mean():.1f}, {first['in_use']:.0%} of the codes in use"


# --- the tables -----------------------------------------------------------------------------------------------------


def _table_of(published: Mapping[str, float]) -> "Callable[[pd.DataFrame], pd.DataFrame]":
    """Our numbers beside the published ones as text; empty where there is none."""

    def table(scores: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        by_name = {str(name): rows for name, rows in scores.groupby("network", sort=False)}
        rows = [_network_row(name, by_name.get(_SAME.get(name, name)), number) for name, number in published.items()]
        return pd.DataFrame([_shapes_row(by_name.get(SHAPE_CODE)), *rows])

    return table


def _row(name: str, numbers: Mapping[str, str]) -> dict[str, str]:
    return {"network": name, **{column: numbers.get(column, "") for column in _COLUMNS}}


_COLUMNS = ("mAP", "mAP 95 %", "AP50", "AP75", "best IoU", "counts", "reconstruction", "published mAP")


def _network_row(name: str, rows: "pd.DataFrame | None", published: float) -> dict[str, str]:
    if rows is None:
        return _row(name, {"published mAP": f"{published:.1f}"})
    seeds = rows.groupby("seed").first()
    named = {
        "mAP": "all_ap",
        "AP50": "all_ap50",
        "AP75": "all_ap75",
        "best IoU": "all_best_iou",
        "counts": "all_count_right",
    }
    numbers = {title: _over_seeds(seeds[column]) for title, column in named.items()}
    if len(seeds) == 1:
        low, high = (100 * float(seeds[f"all_ap_{end}"].iloc[0]) for end in ("low", "high"))
        numbers["mAP 95 %"] = span(low, high, ".1f")
    return _row(name, {**numbers, "published mAP": f"{published:.1f}"})


def _shapes_row(rows: "pd.DataFrame | None") -> dict[str, str]:
    return _row(SHAPE_CODE, {} if rows is None else {"reconstruction": _over_seeds(rows.groupby("seed")["iou"].mean())})


def _over_seeds(values: "pd.Series[float]") -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def _paper_table(published: Mapping[str, float], on: str) -> PaperTable:
    return PaperTable(
        "annotated cells, each with its complete outline",
        draw,
        _jobs_of(tuple(published)),
        _table_of(published),
        (NOTES[0].format(on=on), *NOTES[1:]),
        "The encoders started from random weights; ImageNet weights, usual for Mask R-CNN, are given with --backbone "
        "FILE.",
        has_spread=True,
    )


TABLES = {
    "vqamodal-table1": _paper_table(EMBRYOS, "'s table 1, on its own embryos"),
    "vqamodal-table2": _paper_table(KINS, "'s table 2, on KINS"),
    "vqamodal-table3": _paper_table(ABLATION, "'s table 3, on KINS"),
}
