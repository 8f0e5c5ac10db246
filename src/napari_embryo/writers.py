"""What napari calls to save a layer: OME-TIFF with physical size, axes and names."""

from collections.abc import Mapping
from typing import Any


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
