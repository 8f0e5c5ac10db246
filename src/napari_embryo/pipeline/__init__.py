"""One embryo from start to end: predict, explain, measure, and write the files."""

from napari_embryo import measure
from napari_embryo.notes import Failure, Note
from napari_embryo.pipeline.analysis import SMALLEST, analyze
from napari_embryo.pipeline.loading import load_predictor
from napari_embryo.pipeline.parts_files import drawn
from napari_embryo.pipeline.provenance import provenance_of
from napari_embryo.pipeline.sources import file_names, with_files
from napari_embryo.pipeline.write import SHEET_FRAMES, segment_all_to_files, segment_to_files
from napari_embryo.results import ImageResult, Index, PlaneResult, Row

__all__ = [
    "SHEET_FRAMES",
    "SMALLEST",
    "Failure",
    "ImageResult",
    "Index",
    "Note",
    "PlaneResult",
    "Row",
    "analyze",
    "drawn",
    "file_names",
    "load_predictor",
    "measure",
    "provenance_of",
    "segment_all_to_files",
    "segment_to_files",
    "with_files",
]
