"""Label unannotated images with masks that a network is confident of, as additional training data.

    python scripts/pseudo_label.py OUT FOLDER [FOLDER ...] --weights W [--agreement 0.82]

Each image is segmented in eight mirrored and rotated views. If these agree (mean IoU of a view's masks with those of
the mean, over the classes that are always present), the masks of the mean are written to OUT/images and OUT/masks, a
folder that ``napari-embryo train`` reads; name it under ``only_train`` in the recipe, so that it is not used for
validation. Embryos that the network was validated on are left out.

For a network that finds single cells, one view is used, and an image is kept if the network is confident (--sure) of
every cell that it finds; the complete outlines are written to OUT/annotations.json (COCO).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo import data, io, library, measure, pipeline, predict
from napari_embryo.data import coco_writer
from napari_embryo.families import FAMILIES
from napari_embryo.image import Parts
from napari_embryo.models import checkpoint
from napari_embryo.predict import Predictor
from napari_embryo.settings import SegmentSettings

DOUBTFUL = 0.15
"""Cells with a lower score are ignored."""
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--agreement", type=float, default=0.82)
    parser.add_argument("--sure", type=float, default=0.7)
    args = parser.parse_args()
    family: Any = checkpoint.read_info(library.find(args.weights)).model.family
    finds_cells = FAMILIES[family].finds_cells
    settings = SegmentSettings(family=family, weights=args.weights, maps=(), one_embryo=finds_cells)
    aside = judged(args.weights)
    if finds_cells:
        predictor = Predictor(checkpoint.load(args.weights, family), settings, least_score=DOUBTFUL)
        label_cells([path for folder in args.folders for path in pictures(folder, aside)], predictor, args)
        return
    predictor = pipeline.load_predictor(settings)
    for folder in args.folders:
        kept = [path for path in pictures(folder, aside) if label(path, predictor, args)]
        print(f"{folder}: {len(kept)} images kept")


def label_cells(paths: list[Path], predictor: Predictor, args: argparse.Namespace) -> None:
    """Write the images and cells that the network is confident of."""
    images: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    for path in paths:
        picture = np.asarray(io.read_image(path).data)
        found = next(predictor.predict([picture])).finding
        if found.scores is None or not len(found.scores) or found.scores.min() < args.sure:
            continue
        name = f"{path.parent.name}_{path.stem}.png".replace(" ", "_")
        io.write_png(args.out / "images" / name, picture.astype(np.uint8))
        height, width = picture.shape
        embryo = data.embryo_of(path.stem)
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width, "embryo": embryo})
        cells += [coco_writer.annotation(len(cells) + i, len(images), mask) for i, mask in enumerate(found.masks, 1)]
    with io.replacing(args.out / "annotations.json") as draft:
        coco_writer.write(draft, images, cells)
    print(f"{len(images)} of {len(paths)} images kept, {len(cells)} cells")


def judged(weights: str) -> set[str]:
    """Digests of the embryos that the network is validated or tested on, from its checkpoint."""
    embryos = checkpoint.read_info(library.find(weights)).provenance.get("embryos", {})
    return {*embryos.get("validation", ()), *embryos.get("test", ())}


def pictures(folder: Path, aside: set[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and data.digest(data.embryo_of(path.stem)) not in aside:
            yield path


def label(path: Path, predictor: Predictor, args: argparse.Namespace) -> bool:
    """Write the image and its masks if the views agree."""
    picture = np.asarray(io.read_image(path).data)
    views = np.stack([probabilities(picture, predictor, *view) for view in predict.VIEWS])
    mean = views.mean(axis=0)
    masks = mean >= 0.5
    always = [i for i, name in enumerate(predictor.classes) if name != "fragment"]
    agreement = np.mean([[measure.iou(view[i] >= 0.5, masks[i]) for i in always] for view in views])
    masks = predict.largest_embryo(masks)
    if agreement < args.agreement or not masks[always].any(axis=(1, 2)).all():
        return False
    for name in ("images", "masks"):
        (args.out / name).mkdir(parents=True, exist_ok=True)
    name = f"{path.parent.name}_{path.stem}.png".replace(" ", "_")
    io.write_png(args.out / "images" / name, picture.astype(np.uint8))
    labels = Parts(predictor.classes, masks, mean.astype(np.float32), on_top=("fragment",)).labels()
    io.write_png(args.out / "masks" / name, labels)
    return True


def probabilities(picture: np.ndarray, predictor: Predictor, turns: int, mirrored: bool) -> np.ndarray:
    """(C, H, W) masks of one view, transformed back."""
    seen = np.ascontiguousarray(np.rot90(picture[:, ::-1] if mirrored else picture, turns))
    back = np.rot90(next(predictor.predict([seen])).finding.probabilities, -turns, axes=(1, 2))
    return back[:, :, ::-1] if mirrored else back


if __name__ == "__main__":
    main()
