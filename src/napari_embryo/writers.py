"""What napari calls to save a layer: OME-TIFF with physical size, axes and names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_embryo.io import LayerData


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write an image layer.

    Parameters
    ----------
    path
        Where; the file appears only when it is complete.
    data
        The layer's array; of a multiscale layer the finest level is written.
    attributes
        The layer's keywords.

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


def write_cells(path: str, layers: "Sequence[LayerData]") -> list[str]:
    """Write the Labels layers of one run's cells together: a channel each, and COCO JSON beside.

    Pixels of another label than the cell's own are not written; a warning says how many.

    Returns
    -------
    list of str
        The paths written.

    Raises
    ------
    ImageError
        Naming the layers that are no cells of one run.
    """
    from napari_embryo.data.cells_writer import write_cells

    return [str(written) for written in write_cells(path, layers)]
