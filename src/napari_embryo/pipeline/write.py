"""Write the files of an image plane by plane and atomically."""

import errno
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo import explain, io, render
from napari_embryo.families import MapInfo
from napari_embryo.image import EmbryoImage, Parts, Progress
from napari_embryo.notes import Failure
from napari_embryo.pipeline.analysis import analyze, analyze_all
from napari_embryo.pipeline.cells_files import CellsFiles
from napari_embryo.pipeline.parts_files import PartsFiles
from napari_embryo.pipeline.provenance import provenance_of
from napari_embryo.predict import Predictor
from napari_embryo.results import ImageResult, Index, PlaneResult, Row

_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""Characters that some systems forbid in file names, but channel names may contain."""

PARTS_ENDINGS, CELLS_ENDINGS = ("labels.ome.tif",), ("cells.ome.tif", "cells.json")
ENDINGS = (*PARTS_ENDINGS, *CELLS_ENDINGS, "attention.ome.tif", "overlay.png")
"""Suffixes of the files of an image."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The disk is full: the files of the images that follow would not be written either."""

Written = tuple[list[Row], tuple[Path, ...]]

SHEET_FRAMES = 12
"""Number of planes of a stack shown in its overlay, evenly spaced."""


def segment_to_files(
    image: EmbryoImage, predictor: Predictor, out: Path, name: str | None = None
) -> Generator[Progress, None, list[Row]]:
    """Analyze one image or time-lapse and write what was found; memory does not grow with its length.

    Writes ``<name>_labels.ome.tif`` (uint8: 0 background, i + 1 for class i), ``<name>_attention.ome.tif`` (float32, a
    channel per map, in the map's own range; without maps, one of an earlier run is removed) and ``<name>_overlay.png``.
    A file appears when it is complete, or not at all.

    For single cells, instead of labels: ``<name>_cells.ome.tif`` (uint8, a binary channel per cell, or per track of a
    time-lapse; none if no cell was found) and ``<name>_cells.json`` (COCO: complete outlines as polygons and run
    lengths).

    Parameters
    ----------
    image
        Axes YX or TYX.
    predictor
        From :func:`load_predictor`.
    out
        Existing folder.
    name
        Stem of the file names; the name of the image by default.

    Returns
    -------
    list of dict
        The rows of the table.

    Raises
    ------
    ValueError
        If no plane could be processed; the message is the reason for the first one.
    """
    stem = out / _NOT_IN_NAMES.sub("_", name or image.name)
    return (yield from _write(image, analyze(image, predictor), predictor, stem))[0]


def segment_all_to_files(
    images: Iterable[tuple[EmbryoImage, Path]], predictor: Predictor, overlays: bool = True
) -> Generator[tuple[EmbryoImage, Progress], None, None]:
    """:func:`segment_to_files` for many images, but faster: small images share batches, and writing overlaps computing.

    Yields a progress with its image for every plane, and after the last plane of an image one with an
    :class:`ImageResult`, which also reports an image that cannot be written; the others are still processed.

    Parameters
    ----------
    images
        Images, each with the folder and the first part of the names of its files.
    predictor
        From :func:`load_predictor`.
    overlays
        Whether to write overlays.

    Raises
    ------
    OSError
        If the disk is full.
    """
    stems: dict[int, Path] = {}
    for image, steps in groupby(analyze_all(_wanted(images, stems), predictor), key=attrgetter("image")):
        writing = _write(image, (step.progress for step in steps), predictor, stems.pop(id(image)), overlays)
        result = yield from _with_image(image, writing)
        yield image, Progress(image.n_planes, image.n_planes, image.name, result)


def _wanted(
    images: Iterable[tuple[EmbryoImage, Path]], stems: dict[int, Path]
) -> Iterator[tuple[EmbryoImage, list[Index]]]:
    for image, stem in images:
        stems[id(image)] = stem
        yield image, list(np.ndindex(image.shape[:-2]))


def _with_image(
    image: EmbryoImage, writing: Generator[Progress, None, Written]
) -> Generator[tuple[EmbryoImage, Progress], None, ImageResult]:
    try:
        while True:
            yield image, next(writing)
    except StopIteration as finished:
        rows, files = finished.value
        return ImageResult(image, rows, files=files)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        return ImageResult(image, [], reason=str(error))
    finally:
        writing.close()


def _write(
    image: EmbryoImage, steps: Iterable[Progress], predictor: Predictor, stem: Path, overlays: bool = True
) -> Generator[Progress, None, Written]:
    with ExitStack() as open_files:
        files = _Files(image, predictor, stem, open_files, overlays)
        for progress in steps:
            files.write(progress.item)
            yield progress
            if progress.done == progress.total:  # do not keep its files waiting for the next image
                break
        rows = files.finish()
    return rows, files.written()


class _Files:
    """All files of one image, written plane by plane."""

    def __init__(
        self, image: EmbryoImage, predictor: Predictor, stem: Path, open_files: ExitStack, overlays: bool
    ) -> None:
        self.image, self.stem, self.classes, self.open_files = image, stem, predictor.classes, open_files
        self.overlays = overlays
        self.about: dict[str, Any] = {
            "pixel_size_um": image.pixel_size_um,
            "hours": image.hours,
            "focus_um": image.focus_um,
            "metadata": provenance_of(image, predictor),
        }
        shown = _maps(predictor)
        self.n_maps = len(shown)
        self.attention = open_files.enter_context(self._attention(shown)) if shown else None
        self.found: PartsFiles | CellsFiles | None = None
        self.is_any_shown = False
        self.sheet = set(np.linspace(0, image.n_planes - 1, min(SHEET_FRAMES, image.n_planes)).round().astype(int))
        self.failures: list[Failure] = []

    def _attention(self, shown: dict[str, MapInfo]) -> io.OmeTiffStackWriter:
        *leading, height, width = self.image.shape
        described = {
            "windows": {name: info.window for name, info in shown.items()},
            "meanings": {name: info.meaning for name, info in shown.items()},
        }
        about = {**self.about, "metadata": {**self.about["metadata"], **described}}
        shape = (*leading, len(shown), height, width)
        axes = self.image.axes[:-2] + "CYX"
        return io.OmeTiffStackWriter(self._path("attention.ome.tif"), shape, "float32", axes, names=[*shown], **about)

    def write(self, item: PlaneResult | Failure) -> None:
        """Add the next plane; one that could not be read is empty, so that the others keep their places."""
        if isinstance(item, Failure):
            self._write_blank(item)
            return
        found = self._files_of(item)
        place = int(np.ravel_multi_index(item.index, self.image.shape[:-2])) if item.index else 0
        is_shown = self.overlays and (place in self.sheet or not self.is_any_shown)
        self.is_any_shown = True
        found.write(item, is_shown)
        if self.attention:
            self.attention.write(np.stack([m.on_image() for m in item.maps]))

    def _files_of(self, first: PlaneResult) -> PartsFiles | CellsFiles:
        """Files for parts or for single cells, depending on the first plane that could be processed."""
        if self.found is None:
            self.found = (
                PartsFiles(self.image, self.classes, self.stem, self.about, self.open_files)
                if isinstance(first.finding, Parts)
                else CellsFiles(self.image, self.stem, self.about, self.open_files)
            )
            for _ in self.failures:
                self.found.write_blank()
        return self.found

    def _write_blank(self, failure: Failure) -> None:
        self.failures.append(failure)
        if len(self.failures) == self.image.n_planes:
            raise ValueError(self.failures[0].reason)
        if self.found:
            self.found.write_blank()
        if self.attention:
            self.attention.write(np.zeros((self.n_maps, *self.image.shape[-2:]), np.float32))

    def finish(self) -> list[Row]:
        """The rows of the table."""
        if self.found is None:
            return []
        rows, pictures = self.found.finish()
        for ending in (
            CELLS_ENDINGS if isinstance(self.found, PartsFiles) else PARTS_ENDINGS
        ):  # from a run with another network
            self._path(ending).unlink(missing_ok=True)
        if pictures:
            io.write_png(self._path("overlay.png"), render.tiled(pictures, min(4, len(pictures))), is_result=True)
        else:
            self._path("overlay.png").unlink(missing_ok=True)
        if self.attention is None:  # those of an earlier run would show other masks
            self._path("attention.ome.tif").unlink(missing_ok=True)
        return rows

    def written(self) -> tuple[Path, ...]:
        """The files that exist once all are closed."""
        return tuple(path for ending in ENDINGS if (path := self._path(ending)).exists())

    def _path(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}_{ending}")


def _maps(predictor: Predictor) -> dict[str, MapInfo]:
    """Every map that is computed, by name, with its window and meaning."""
    known = predictor.family.maps
    cams = explain.grad_cam_names(predictor.classes) if predictor.settings.grad_cam else ()
    meaning = f"evidence for the class at {predictor.settings.grad_cam}, divided by its maximum"
    return {name: known[name] for name in predictor.settings.maps} | {
        name: MapInfo(name, None, (0, 1), meaning) for name in cams
    }
