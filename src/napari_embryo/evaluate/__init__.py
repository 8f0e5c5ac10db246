"""Metrics on annotated images: agreement of masks and single cells, and errors of fragmentation ratios."""

from napari_embryo.evaluate.bootstrap import bootstrap_interval
from napari_embryo.evaluate.cells import (
    CELL_COLUMNS,
    LEAST_SCORE,
    Judged,
    cell_rows,
    cell_summary,
    judge_cells,
)
from napari_embryo.evaluate.masks import COLUMNS, score, summary
from napari_embryo.evaluate.ratios import (
    RATIO_COLUMNS,
    SUMMARY_COLUMNS,
    WAYS,
    quadratic_kappa,
    ratio_summary,
    score_ratios,
)

__all__ = [
    "CELL_COLUMNS",
    "COLUMNS",
    "LEAST_SCORE",
    "RATIO_COLUMNS",
    "SUMMARY_COLUMNS",
    "WAYS",
    "Judged",
    "bootstrap_interval",
    "cell_rows",
    "cell_summary",
    "judge_cells",
    "quadratic_kappa",
    "ratio_summary",
    "score",
    "score_ratios",
    "summary",
]
