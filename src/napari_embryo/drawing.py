"""Folders of drawn embryos with exact ground truth, laid out like annotated data sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data import rle
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.synthetic import SyntheticEmbryo, draw_blastocyst, draw_cleavage
from napari_embryo.synthetic.embryo import Style

BLASTOCYST_SHAPE, CLEAVAGE_SHAPE = (390, 440), (500, 500)
ANNOTATIONS = "annotations.json"
CATEGORIES = {"cell": 1, "fragment": 2}

Shares = tuple[float, float]
"""Smallest and largest share of fragments."""


def draw_blastocysts(
    folder: Path,
    count: int,
    shape: tuple[int, int] = BLASTOCYST_SHAPE,
    seed: int = 0,
    styles: Sequence[Style] = ("microscope",),
) -> Path:
    """Draw blastocysts with their masks, laid out like the data set of Saeedi et al.

    Parameters
    ----------
    folder
        Gets ``Images/`` and ``GT_ICM/``, ``GT_TE/``, ``GT_ZP/``.
    count
        Number of embryos; the same seed draws the same ones.
    shape
        (height, width) in pixels, 64 or more each.
    seed
        Seed of the first embryo; the others count up from it.
    styles
        Styles, used in turn.

    Returns
    -------
    Path
        ``folder``.
    """
    for name in ("Images", *(f"GT_{region}" for region in BLASTOCYST_CLASSES)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        embryo = draw_blastocyst(seed + i, shape, styles[i % len(styles)])
        for region in BLASTOCYST_CLASSES:
            mask = embryo.masks[region].astype(np.uint8) * 255
            io.write_png(folder / f"GT_{region}" / f"drawn{seed + i} {region}_Mask.png", mask)
        io.write_png(folder / "Images" / f"drawn{seed + i}.png", embryo.image)
    return folder


def draw_cleavages(
    folder: Path,
    count: int,
    shape: tuple[int, int] = CLEAVAGE_SHAPE,
    seed: int = 0,
    styles: Sequence[Style] = ("incubator", "microscope"),
    fragmentation: Shares | None = None,
) -> Path:
    """Draw cleavage-stage embryos with every cell's complete silhouette and the fragments, as COCO.

    Parameters
    ----------
    folder
        Gets ``images/`` and ``annotations.json`` with the categories ``cell`` (complete, also where hidden) and
        ``fragment``.
    count, shape, seed, styles
        As for :func:`draw_blastocysts`.
    fragmentation
        Smallest and largest share of fragments, with even steps in between; by default as is usual in embryos.

    Returns
    -------
    Path
        ``folder``.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    shares = [None] * count if fragmentation is None else np.linspace(*fragmentation, count).tolist()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, share in enumerate(shares):
        embryo = draw_cleavage(seed + i, None, share, shape, styles[i % len(styles)])
        name = f"drawn{seed + i}"
        io.write_png(folder / "images" / f"{name}.png", embryo.image)
        about = {"id": i + 1, "file_name": f"{name}.png", "height": shape[0], "width": shape[1], "embryo": name}
        images.append(
            {**about, "um_per_px": embryo.pixel_size_um[0], "fragmentation_ratio": embryo.fragmentation_ratio}
        )
        annotations += _annotations(embryo, i + 1, len(annotations) + 1)
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with io.replacing(folder / ANNOTATIONS) as draft:
        draft.write_text(json.dumps(content), encoding="utf-8")
    return folder


def _annotations(embryo: SyntheticEmbryo, image: int, first: int) -> list[dict[str, Any]]:
    """COCO annotations of one image; ids count up from ``first``, since pycocotools takes 0 for none."""
    drawn = [("cell", cell) for cell in embryo.cells]
    drawn += [("fragment", embryo.fragments)] if embryo.fragments.any() else []
    return [
        {
            "id": first + i,
            "image_id": image,
            "category_id": CATEGORIES[name],
            "segmentation": {"size": list(mask.shape), "counts": rle.encode(mask)},
            "area": int(mask.sum()),
            "bbox": _bounds(mask),
            "iscrowd": 0,
        }
        for i, (name, mask) in enumerate(drawn)
    ]


def _bounds(mask: npt.NDArray[np.bool_]) -> list[int]:
    """x, y, width, height."""
    ys, xs = np.nonzero(mask)
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
