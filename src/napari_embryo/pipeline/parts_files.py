"""The files of an image with parts of an embryo: labels, and the parts over the image."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io, measure, render
from napari_embryo.image import EmbryoImage, Parts, as_parts
from napari_embryo.notes import RESEARCH_ONLY
from napari_embryo.render import Rgb
from napari_embryo.results import PlaneResult, Row, picture_said


class PartsFiles:
    """Write ``<name>_labels.ome.tif`` plane by plane, and prepare the overlay.

    Parameters
    ----------
    image
        The image.
    classes
        Names of the labels from 1 up.
    stem
        Folder and first part of the file names.
    about
        Metadata to store in the files.
    open_files
        Files opened in it appear when it closes without an error.
    """

    def __init__(
        self, image: EmbryoImage, classes: tuple[str, ...], stem: Path, about: dict[str, Any], open_files: ExitStack
    ) -> None:
        self.image, self.classes = image, classes
        path = stem.with_name(f"{stem.name}_labels.ome.tif")
        writer = io.OmeTiffStackWriter(path, image.shape, "uint8", image.axes, kind="labels", names=classes, **about)
        self.labels = open_files.enter_context(writer)
        self.rows: list[Row] = []
        self.pictures: list[Rgb] = []

    def write(self, result: PlaneResult, is_shown: bool) -> None:
        """Add the next plane."""
        self.labels.write(as_parts(result.finding).labels())
        self.rows += result.rows
        if is_shown:
            self.pictures.append(self._shown(result))

    def write_blank(self) -> None:
        """Add an empty plane for one that could not be read, so that the others keep their places."""
        self.labels.write(np.zeros(self.image.shape[-2:], np.uint8))

    def finish(self) -> tuple[list[Row], list[Rgb]]:
        """The rows of the table, and the images to show side by side."""
        return self.rows, self.pictures

    def _shown(self, result: PlaneResult) -> Rgb:
        picture = drawn(result.plane, as_parts(result.finding))
        title = picture_said(self.image, result.index, self.image.n_planes)
        picture = render.with_legend(picture, self.classes, title)
        for line in _graded(result.rows):
            picture = render.with_legend(picture, (), line)
        return picture


def drawn(plane: npt.NDArray[Any], found: Parts) -> Rgb:
    """Draw the masks over their plane; classes that are parts of others are on top, as in the labels."""
    order = sorted(range(len(found.classes)), key=lambda i: found.classes[i] in found.on_top)
    return render.overlay(plane, found.masks[order], [found.classes[i] for i in order])


def _graded(rows: list[Row]) -> list[str]:
    """Ratio and grade to show below a plane; the same number of lines for every plane of an image."""
    graded = [row for row in rows if row.get("ratio_basis")]
    research = RESEARCH_ONLY.lower()
    return [line for row in graded for line in (measure.ratios_said(row), f"{measure.grade_said(row)}; {research}")]
