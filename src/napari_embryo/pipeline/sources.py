"""Which file each picture of an image lies in, and whose picture it is: what a file of outlines has to name."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from napari_embryo.data.embryos import embryo_of, image_stem, known_embryo
from napari_embryo.image import EmbryoImage
from napari_embryo.io import PlannedImage

FILES = "files"
"""In an image's metadata: the file of each of its pictures, in order, named from the folder that holds them all; None
where no one file is that picture."""


def with_files(image: EmbryoImage, planned: PlannedImage) -> EmbryoImage:
    """The same image, which knows the files of its pictures where they lie in files of their own.

    Parameters
    ----------
    image
        Opened, of one of its focal planes or of all.
    planned
        What it was opened from.
    """
    if planned.is_one_file:
        return image
    home = commonpath([file.parent for row in planned.rows for file in row if file is not None])
    files = [file for row in planned.rows for file in _of_frame(row, image)]
    names = tuple(None if file is None else file.relative_to(home).as_posix() for file in files)
    return image.with_data(image.data, metadata={**image.metadata, FILES: names})


def _of_frame(row: Sequence[Path | None], image: EmbryoImage) -> Sequence[Path | None]:
    """Of all planes that are shown; None where a picture was made of several, or nobody wrote of which."""
    if len(row) == 1 or "F" in image.axes:
        return row
    plane = image.metadata.get("focus_plane")
    return (None if plane is None else row[plane],)


def file_names(image: EmbryoImage) -> Sequence[str | None]:
    """The file of every picture, as far as the image knows."""
    names: Sequence[str | None] = image.metadata.get(FILES, ())
    return names if len(names) == image.n_planes else (None,) * image.n_planes


def file_name(image: EmbryoImage) -> str:
    """Of the image as a whole."""
    return Path(str(image.metadata.get("source") or f"{image.name}.png")).name


def embryo(image: EmbryoImage, file: str) -> str:
    """As the readers of annotated pictures tell it from the file's name, or else from that of the image.

    Frames called 1, 2, 3 are of one embryo; their own names would make them as many.
    """
    stem = image_stem(file)
    is_one_of_many = FILES in image.metadata or stem == file  # a folder's name has no ending
    return known_embryo(stem) or embryo_of(image.name if is_one_of_many else stem)
