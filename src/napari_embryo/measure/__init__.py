"""Measurements: one row of numbers per object, and agreement of masks."""

from napari_embryo.measure.agreement import dice, iou, pooled_iou
from napari_embryo.measure.cells import ALL_CELLS, CELL_COLUMNS, measure_cells
from napari_embryo.measure.fragments import RATIO_COLUMNS, fragmentation, grade
from napari_embryo.measure.objects import COLUMNS, Mask, Row, measure_masks, zona_thickness_um
from napari_embryo.measure.rows import measure_all, measure_labels, where
from napari_embryo.measure.summary_text import (
    area_said,
    cells_said,
    far_apart,
    far_apart_said,
    grade_said,
    percent,
    range_said,
    ratio_said,
    ratios_said,
    said,
)

__all__ = [
    "ALL_CELLS",
    "CELL_COLUMNS",
    "COLUMNS",
    "RATIO_COLUMNS",
    "Mask",
    "Row",
    "area_said",
    "cells_said",
    "dice",
    "far_apart",
    "far_apart_said",
    "fragmentation",
    "grade",
    "grade_said",
    "iou",
    "measure_all",
    "measure_cells",
    "measure_labels",
    "measure_masks",
    "percent",
    "pooled_iou",
    "range_said",
    "ratio_said",
    "ratios_said",
    "said",
    "where",
    "zona_thickness_um",
]
