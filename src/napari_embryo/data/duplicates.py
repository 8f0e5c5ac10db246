"""Outlines that were drawn or saved twice."""

from dataclasses import replace

import numpy as np

from napari_embryo.data.sample import Bools, Remark, Truth

_SAME = 0.95
"""IoU from which two silhouettes are one cell drawn twice; the most similar annotated cells have 0.8."""
TWICE = "the same cell was outlined twice and counted once"


def without_duplicates(truth: Truth) -> Truth:
    """The same image without the second of two outlines of one cell, which a remark mentions."""
    areas = [int(np.count_nonzero(cell)) for cell in truth.cells]
    kept: list[int] = []
    for i, area in enumerate(areas):
        alike = (j for j in kept if min(area, areas[j]) >= _SAME * max(area, areas[j]))
        if not any(_is_same(truth.cells[i], truth.cells[j], area + areas[j]) for j in alike):
            kept.append(i)
    left_out = len(truth.cells) - len(kept)
    if not left_out:
        return truth
    visible = None if truth.visible is None else truth.visible[kept]
    remark = Remark(TWICE, f"{left_out} of {len(truth.cells)} outlines")
    return replace(truth, cells=truth.cells[kept], visible=visible, remarks=(*truth.remarks, remark))


def _is_same(one: Bools, other: Bools, areas: int) -> bool:
    overlap = np.count_nonzero(one & other)
    return bool(overlap and overlap >= _SAME * (areas - overlap))
