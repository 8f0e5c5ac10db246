"""The files of an image with single cells: complete masks, COCO JSON, and the cells over the image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io, measure, render
from napari_embryo.cells import CellFrame, ImageCells, follow
from napari_embryo.data import coco_writer, rle
from napari_embryo.image import EmbryoImage
from napari_embryo.io.cells import SCORES
from napari_embryo.pipeline import sources
from napari_embryo.render import Rgb
from napari_embryo.results import Index, PlaneResult, Row, picture_said


class CellsFiles:
    """Write ``<name>_cells.ome.tif`` and ``<name>_cells.json``, and prepare the overlay.

    They are written at the end, because only then is it known which cell of a time-lapse is which. Until then every
    cell is kept as run lengths, so that memory does not grow with the pixels.

    Parameters
    ----------
    image
        The image; :func:`napari_embryo.cells.follow` decides which cells keep their number.
    stem
        Folder and first part of the file names.
    about
        Metadata to store in the files.
    open_files
        Files opened in it appear when it closes without an error.
    """

    def __init__(self, image: EmbryoImage, stem: Path, about: dict[str, Any], open_files: ExitStack) -> None:
        self.image, self.stem, self.about, self.open_files = image, stem, about, open_files
        self.frames: list[CellFrame] = []
        self.planes: dict[int, npt.NDArray[Any]] = {}

    def write(self, result: PlaneResult, is_shown: bool) -> None:
        """Add the next plane."""
        if is_shown:
            self.planes[len(self.frames)] = np.array(result.plane)
        self.frames.append(CellFrame.of(result))

    def write_blank(self) -> None:
        """Add a plane that could not be read; it has no cells."""
        self.frames.append(CellFrame(self._index(len(self.frames)), self._hw))

    def finish(self) -> tuple[list[Row], list[Rgb]]:
        """Write the files; return the rows of the table and the images to show side by side."""
        cells = follow(self.frames, self.image)
        self._write_masks(cells)
        self._write_json(cells)
        return cells.rows(), [self._shown(cells, place) for place in self.planes]

    @property
    def _hw(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]

    def _write_masks(self, cells: ImageCells) -> None:
        """Write a channel per cell or track; without cells there is no file, and one of an earlier run is removed."""
        path = self.stem.with_name(f"{self.stem.name}_cells.ome.tif")
        if not cells.count:
            self.open_files.callback(path.unlink, missing_ok=True)
            return
        shape = (*self.image.shape[:-2], cells.count, *self._hw)
        about = {
            **self.about,
            "metadata": {**self.about["metadata"], SCORES: [round(score, 4) for score in cells.scores()]},
        }
        writer = io.OmeTiffStackWriter(
            path, shape, "uint8", self.image.axes[:-2] + "CYX", kind="labels", names=cells.names, **about
        )
        stack = self.open_files.enter_context(writer)
        for frame, ids in zip(cells.frames, cells.numbers, strict=True):
            for number in range(1, cells.count + 1):
                stack.write(self._mask_of(frame, ids, number))

    def _mask_of(self, frame: CellFrame, ids: Sequence[int], number: int) -> npt.NDArray[np.uint8]:
        if number not in ids:
            return np.zeros(self._hw, np.uint8)
        return rle.decode(frame.runs[ids.index(number)], self._hw).astype(np.uint8)

    def _write_json(self, cells: ImageCells) -> None:
        draft = self.open_files.enter_context(io.replacing(self.stem.with_name(f"{self.stem.name}_cells.json")))
        more: dict[str, Any] = {"info": {"description": "complete cells", **self.about["metadata"]}}
        if cells.followed:
            more["tracks"] = [{"id": i, "parent": cells.parents.get(i)} for i in range(1, cells.count + 1)]
        coco_writer.write(draft, self._images(), self._annotations(cells), **more)

    def _images(self) -> list[dict[str, Any]]:
        about: dict[str, Any] = {"height": self._hw[0], "width": self._hw[1]}
        about |= coco_writer.pixel_size(self.image.pixel_size_um)
        files = sources.file_names(self.image)
        return [
            {"id": i + 1, **self._origin(i, file), **about, "n_cells": len(frame.runs), **self._time(i)}
            for i, (frame, file) in enumerate(zip(self.frames, files, strict=True))
        ]

    def _origin(self, number: int, file: str | None) -> dict[str, Any]:
        """File of a plane or its index in the image's file, and its embryo."""
        name = file or sources.file_name(self.image)
        embryo = {"embryo": sources.embryo(self.image, name)} if file or self._index(number) else {}
        index = {} if file or not self._index(number) else {"index": list(self._index(number))}
        return {"file_name": name, **embryo, **index}

    def _time(self, number: int) -> dict[str, Any]:
        row = measure.where(self.image, self._index(number))
        return {name: value for name, value in row.items() if name != "image"}

    def _index(self, number: int) -> Index:
        return tuple(int(i) for i in np.unravel_index(number, self.image.shape[:-2]))

    def _annotations(self, cells: ImageCells) -> Iterator[dict[str, Any]]:
        number = 0
        for image, (frame, ids) in enumerate(zip(cells.frames, cells.numbers, strict=True), start=1):
            for mask, score, track in zip(frame.masks, frame.scores, ids, strict=True):
                number += 1
                more = {"score": score, **({"track": track} if cells.followed else {})}
                yield coco_writer.annotation(number, image, mask, **more)

    def _shown(self, cells: ImageCells, place: int) -> Rgb:
        frame = cells.frames[place]
        picture = render.overlay_cells(self.planes[place], frame.masks, cells.numbers[place])
        title = picture_said(self.image, frame.index, self.image.n_planes)
        return render.with_legend(picture, (), f"{title}: {measure.cells_said(frame.rows)}")
