"""Writer contributions: save layers as OME-TIFF with physical size, axes and names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_embryo.io import LayerData


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write an image layer.

    Parameters
    ----------
    path
        Where to write; the file appears only when it is complete.
    data
        The layer's array; for a multiscale layer the finest level is written.
    attributes
        The layer's keyword arguments.

    Returns
    -------
    list of str
        The path written.
    """
    from napari_embryo.io import write_layer

    return [str(write_layer(path, data, attributes, "image"))]


def write_labels(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a labels layer; see `write_image`."""
    from napari_embryo.io import write_layer

    return [str(write_layer(path, data, attributes, "labels"))]


def write_zarr_labels(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a labels layer into the OME-Zarr of its image, under the layer's name; labels of that name are replaced.

    Labels that were opened from an OME-Zarr keep the name they have there.

    Raises
    ------
    ImageError
        If there is no OME-Zarr with an image of that size; the message says what to do.
    """
    from napari_embryo.io import write_layer_to_zarr

    return [str(write_layer_to_zarr(path, data, attributes))]


def write_cells(path: str, layers: "Sequence[LayerData]") -> list[str]:
    """Write the Labels layers of one run's cells together, one channel each, with a COCO JSON file.

    Pixels with a label other than the cell's own are not written; a warning says how many.

    Returns
    -------
    list of str
        The paths written.

    Raises
    ------
    ImageError
        If layers are not cells of one run; the message names them.
    """
    from napari_embryo.data.cells_writer import write_cells

    return [str(written) for written in write_cells(path, layers)]
