"""Embryos drawn from a seed with exact ground truth, for sample data, demonstrations, tests and training.

The same seed gives the same image. Nothing here reads files or uses a network.
"""

from napari_embryo.synthetic.blastocyst import draw_blastocyst
from napari_embryo.synthetic.cleavage import draw_cleavage
from napari_embryo.synthetic.embryo import STYLES, Style, SyntheticEmbryo
from napari_embryo.synthetic.timelapse import draw_timelapse

__all__ = ["STYLES", "Style", "SyntheticEmbryo", "draw_blastocyst", "draw_cleavage", "draw_timelapse"]
