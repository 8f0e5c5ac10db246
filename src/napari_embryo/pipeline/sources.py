"""The file and the embryo of each plane of an image, which a file of outlines has to name."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from napari_embryo.data.embryos import embryo_of, image_stem, known_embryo
from napari_embryo.image import EmbryoImage
from napari_embryo.io import PlannedImage

FILES = "files"
"""Key in an image's metadata for the file of each plane in order, relative to their common folder; None if no single
file is that plane."""


def with_files(image: EmbryoImage, planned: PlannedImage) -> EmbryoImage:
    """The same image with the files of its planes, if they are separate files.

    Parameters
    ----------
    image
        Opened image, with one or all of its focal planes.
    planned
        The plan it was opened from.
    """
    if planned.is_one_file:
        return image
    home = commonpath([file.parent for row in planned.rows for file in row if file is not None])
    files = [file for row in planned.rows for file in _of_frame(row, image)]
    names = tuple(None if file is None else file.relative_to(home).as_posix() for file in files)
    return image.with_data(image.data, metadata={**image.metadata, FILES: names})


def _of_frame(row: Sequence[Path | None], image: EmbryoImage) -> Sequence[Path | None]:
    """Files of all planes shown; None if a plane was computed from several, or its origin is unknown."""
    if len(row) == 1 or "F" in image.axes:
        return row
    plane = image.metadata.get("focus_plane")
    return (None if plane is None else row[plane],)


def file_names(image: EmbryoImage) -> Sequence[str | None]:
    """The file of every plane, if known."""
    names: Sequence[str | None] = image.metadata.get(FILES, ())
    return names if len(names) == image.n_planes else (None,) * image.n_planes


def file_name(image: EmbryoImage) -> str:
    """The embryo of the image as a whole."""
    return Path(str(image.metadata.get("source") or f"{image.name}.png")).name


def embryo(image: EmbryoImage, file: str) -> str:
    """The embryo, as readers of annotated images derive it from the file name, or else from that of the image.

    Frames called 1, 2, 3 show one embryo; by their own names they would count as different ones.
    """
    stem = image_stem(file)
    is_one_of_many = FILES in image.metadata or stem == file  # the name of a folder has no suffix
    return known_embryo(stem) or embryo_of(image.name if is_one_of_many else stem)
