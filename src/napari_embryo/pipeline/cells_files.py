"""The files of an image whose single cells were found: complete masks, COCO JSON, and the cells over the picture."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io, measure, render, tracking
from napari_embryo.data import coco_writer, rle
from napari_embryo.image import EmbryoImage
from napari_embryo.io.cells import SCORES
from napari_embryo.pipeline import sources
from napari_embryo.pipeline.results import Index, PlaneResult, Row, picture_said
from napari_embryo.render import Rgb
from napari_embryo.tracking import Tracks

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Frame:
    """One picture's cells, small: run lengths as text instead of pixels, scores and rows, and the picture if shown."""

    runs: tuple[str, ...]
    scores: tuple[float, ...]
    rows: list[Row]
    hw: tuple[int, int]
    plane: npt.NDArray[Any] | None = None

    def masks(self) -> Masks:
        """(N, H, W)."""
        each = [rle.decode(runs, self.hw) for runs in self.runs]
        return np.stack(each) if each else np.zeros((0, *self.hw), bool)


class CellsFiles:
    """``<name>_cells.ome.tif`` and ``<name>_cells.json``, and what is shown of them.

    They are written at the end: only then it is known which cell of a time-lapse is which. Until then every cell is
    kept as run lengths, so that memory does not grow with the pixels.

    Parameters
    ----------
    image
        What is segmented; a time-lapse's cells (axes TYX) keep their identity from frame to frame.
    stem
        Folder and first part of the files' names.
    about
        What the files say of the image.
    open_files
        What is written in it appears when it closes without an error.

    Raises
    ------
    ModuleNotFoundError
        For a time-lapse where laptrack is not installed.
    """

    def __init__(self, image: EmbryoImage, stem: Path, about: dict[str, Any], open_files: ExitStack) -> None:
        self.image, self.stem, self.about, self.open_files = image, stem, about, open_files
        self.is_followed = image.axes == "TYX"
        if self.is_followed:
            tracking.check_installed()
        self.frames: list[_Frame] = []

    def write(self, result: PlaneResult, is_shown: bool) -> None:
        """The next picture."""
        found = result.segmentation
        runs = tuple(rle.compress(rle.encode(mask)) for mask in found.masks)
        scores = () if found.scores is None else tuple(map(float, found.scores))
        plane = np.array(result.plane) if is_shown else None
        self.frames.append(_Frame(runs, scores, result.rows, self._hw, plane))

    def write_blank(self) -> None:
        """A picture that could not be read has no cells."""
        self.frames.append(_Frame((), (), [], self._hw))

    def finish(self) -> tuple[list[Row], list[Rgb]]:
        """Write the files; the rows of the table, and the pictures to show side by side."""
        named = self._identities()
        self._write_masks(named)
        self._write_json(named)
        places = list(np.ndindex(self.image.shape[:-2]))
        shown = [
            self._shown(frame, ids, place)
            for frame, ids, place in zip(self.frames, named.ids, places, strict=True)
            if frame.plane is not None
        ]
        each = zip(self.frames, named.ids, strict=True)
        return [row for frame, ids in each for row in self._rows(frame, ids, named)], shown

    @property
    def _hw(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]

    def _identities(self) -> Tracks:
        if self.is_followed:
            return tracking.link(frame.masks() for frame in self.frames)
        return Tracks(tuple(tuple(range(1, len(frame.runs) + 1)) for frame in self.frames), {})

    def _write_masks(self, named: Tracks) -> None:
        """A channel per cell, or track; no file where there is no cell, nor the one of a run before."""
        path = self.stem.with_name(f"{self.stem.name}_cells.ome.tif")
        if not named.count:
            self.open_files.callback(path.unlink, missing_ok=True)
            return
        names = [f"cell {number}" for number in range(1, named.count + 1)]
        shape = (*self.image.shape[:-2], named.count, *self._hw)
        about = {**self.about, "metadata": {**self.about["metadata"], SCORES: self._scores(named)}}
        writer = io.OmeTiffStackWriter(
            path, shape, "uint8", self.image.axes[:-2] + "CYX", kind="labels", names=names, **about
        )
        stack = self.open_files.enter_context(writer)
        for frame, ids in zip(self.frames, named.ids, strict=True):
            for number in range(1, named.count + 1):
                stack.write(self._mask_of(frame, ids, number))

    def _scores(self, named: Tracks) -> list[float]:
        """Of each cell, or track, the mean over the frames in which it is."""
        told: list[list[float]] = [[] for _ in range(named.count)]
        for frame, ids in zip(self.frames, named.ids, strict=True):
            for number, score in zip(ids, frame.scores, strict=True):
                told[number - 1].append(float(score))
        return [round(float(np.mean(scores)), 4) for scores in told]

    def _mask_of(self, frame: _Frame, ids: Sequence[int], number: int) -> npt.NDArray[np.uint8]:
        if number not in ids:
            return np.zeros(self._hw, np.uint8)
        return rle.decode(frame.runs[ids.index(number)], self._hw).astype(np.uint8)

    def _write_json(self, named: Tracks) -> None:
        draft = self.open_files.enter_context(io.replacing(self.stem.with_name(f"{self.stem.name}_cells.json")))
        more: dict[str, Any] = {"info": {"description": "complete cells", **self.about["metadata"]}}
        if self.is_followed:
            more["tracks"] = [{"id": i, "parent": named.parents.get(i)} for i in range(1, named.count + 1)]
        coco_writer.write(draft, self._images(), self._annotations(named), **more)

    def _images(self) -> list[dict[str, Any]]:
        about: dict[str, Any] = {"height": self._hw[0], "width": self._hw[1]}
        about |= coco_writer.pixel_size(self.image.pixel_size_um)
        files = sources.file_names(self.image)
        return [
            {"id": i + 1, **self._origin(i, file), **about, "n_cells": len(frame.runs), **self._time(i)}
            for i, (frame, file) in enumerate(zip(self.frames, files, strict=True))
        ]

    def _origin(self, number: int, file: str | None) -> dict[str, Any]:
        """The picture's own file, or which picture of the image's file it is; and whose it is."""
        name = file or sources.file_name(self.image)
        embryo = {"embryo": sources.embryo(self.image, name)} if file or self._index(number) else {}
        index = {} if file or not self._index(number) else {"index": self._index(number)}
        return {"file_name": name, **embryo, **index}

    def _time(self, number: int) -> dict[str, Any]:
        row = measure.where(self.image, self._index(number))
        return {name: value for name, value in row.items() if name != "image"}

    def _index(self, number: int) -> list[int]:
        return [int(i) for i in np.unravel_index(number, self.image.shape[:-2])]

    def _annotations(self, named: Tracks) -> Iterator[dict[str, Any]]:
        number = 0
        for image, (frame, ids) in enumerate(zip(self.frames, named.ids, strict=True), start=1):
            for mask, score, track in zip(frame.masks(), frame.scores, ids, strict=True):
                number += 1
                more = {"score": score, **({"track": track} if self.is_followed else {})}
                yield coco_writer.annotation(number, image, mask, **more)

    def _rows(self, frame: _Frame, ids: Sequence[int], named: Tracks) -> list[Row]:
        """Of a time-lapse with the cell's track, by which it is called, and its mother's."""
        if not self.is_followed:
            return frame.rows
        together, each = frame.rows[:1], frame.rows[1:]
        tracked = [
            {**row, "class": f"cell {track}", "label": track, "track": track, "parent": named.parents.get(track)}
            for row, track in zip(each, ids, strict=True)
        ]
        return [*({**row, "track": None, "parent": None} for row in together), *tracked]

    def _shown(self, frame: _Frame, ids: Sequence[int], place: Index) -> Rgb:
        picture = render.overlay_cells(np.asarray(frame.plane), frame.masks(), ids)
        title = picture_said(self.image, place, self.image.n_planes)
        return render.with_legend(picture, (), f"{title}: {measure.cells_said(frame.rows)}")
