"""COCO JSON of single cells: complete outlines as polygons and run lengths."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_embryo.data import rle
from napari_embryo.data.sample import Bools
from napari_embryo.io.private import without_folders

CELL = 1
"""Id of the category; pycocotools takes 0 for none."""

Ring = npt.NDArray[np.float64]


def outlines(mask: Bools) -> list[list[float]]:
    """Polygons ``[x, y, x, y, ...]`` whose union, filled, is exactly the mask.

    Parts that touch only at a corner have separate outlines. COCO polygons have no holes, so a mask with a hole is cut
    through it into touching halves.

    Parameters
    ----------
    mask
        (H, W); coordinates count from a pixel's corner, as COCO's do.
    """
    from skimage.measure import find_contours

    if not mask.any():
        return []
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    corner = (
        np.array((rows.start, columns.start)) - 0.5
    )  # the border shifts everything by 1, COCO's corners by half a pixel
    parts = _without_holes(mask[rows, columns])
    rings = [ring for part in parts for ring in find_contours(np.pad(part, 1).astype(float), 0.5)]
    return [(_corners(ring[:-1]) + corner)[:, ::-1].ravel().tolist() for ring in rings]


def _without_holes(mask: Bools) -> list[Bools]:
    """The mask, or the pieces into which it is cut until none has a hole, all of the mask's size."""
    holes = ndimage.binary_fill_holes(mask, np.ones((3, 3))) & ~mask
    if not holes.any():
        return [mask]
    across = ndimage.find_objects(ndimage.label(holes, np.ones((3, 3)))[0])[0][1]
    is_left = np.arange(mask.shape[1]) < (across.start + across.stop) // 2
    return [piece for half in (is_left, ~is_left) for piece in _without_holes(mask & half)]


def _corners(ring: Ring) -> Ring:
    """Corners of the outline."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: Bools = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.compress(turns, ring, axis=0)


def annotation(number: int, image: int, mask: Bools, **more: Any) -> dict[str, Any]:
    """One cell of one image.

    Parameters
    ----------
    number, image
        Ids of the cell and of the image, counted from 1.
    mask
        (H, W), the complete silhouette; not empty.
    **more
        Further entries, such as score and track.
    """
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    return {
        "id": number,
        "image_id": image,
        "category_id": CELL,
        "segmentation": outlines(mask),
        "rle": {"size": list(mask.shape), "counts": rle.compress(rle.encode(mask))},
        "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
        "area": int(mask.sum()),
        "iscrowd": 0,
        **more,
    }


def pixel_size(size_um: tuple[float, float] | None) -> dict[str, Any]:
    """``um_per_px`` of an image: one number, or height and width of a non-square pixel; absent if unknown."""
    if size_um is None:
        return {}
    return {"um_per_px": size_um[0] if size_um[0] == size_um[1] else list(size_um)}


def write(
    path: Path,
    images: Sequence[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
    **more: Any,
) -> None:
    """Write a COCO file one annotation at a time, so that not all need to be in memory.

    Parameters
    ----------
    path
        The file; written atomically if it is the draft of :func:`napari_embryo.io.replacing`.
    images
        COCO images.
    annotations
        Results of :func:`annotation`.
    **more
        Further entries of the file, such as ``info`` and ``tracks``.
    """
    head = {**without_folders(more), "categories": [{"id": CELL, "name": "cell"}], "images": list(images)}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, default=str)[:-1] + ', "annotations": [')
        for i, each in enumerate(annotations):
            file.write(",\n" if i else "\n")
            file.write(json.dumps(each))
        file.write("]}\n")
