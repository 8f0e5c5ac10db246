"""From annotated folders to samples, their split and a report; nothing here needs torch."""

from napari_embryo.data.embryos import Embryos, digest, embryo_of
from napari_embryo.data.layouts import find_samples
from napari_embryo.data.napari_samples import save_sample
from napari_embryo.data.polygons import blastocyst_masks
from napari_embryo.data.report import Report, report
from napari_embryo.data.sample import Contents, Found, Sample, Skipped, Truth
from napari_embryo.data.split import Split, digests, kept_parts, split

__all__ = [
    "Contents",
    "Embryos",
    "Found",
    "Report",
    "Sample",
    "Skipped",
    "Split",
    "Truth",
    "blastocyst_masks",
    "digest",
    "digests",
    "embryo_of",
    "find_samples",
    "kept_parts",
    "report",
    "save_sample",
    "split",
]
