"""Which focal plane is sharp, and one sharp picture out of many planes."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_embryo.image import EmbryoImage

Array = npt.NDArray[Any]

SMOOTHING_PX = 6.0
"""Sharpness is compared over this many pixels (standard deviation), so that noise does not choose the plane."""

REGION_PX = 25.0
"""Texture is gathered over this many pixels (standard deviation): an embryo stands out, a well's thin wall does not."""

EDGE_PERCENTILE = 98.0
"""Laplacians beyond this percentile (a well's wall, debris) count as much as this one."""


def sharpness(picture: npt.ArrayLike) -> float:
    """Normalized variance of the Laplacian: var(∇²I) / mean(I)², the same for any exposure time.

    Parameters
    ----------
    picture
        (Y, X) gray values, at least 3 x 3.

    Returns
    -------
    float
        0 for a flat or black image; larger is sharper. Only images of one scene can be compared.
    """
    gray = np.asarray(picture, dtype=np.float64)
    mean = gray.mean()
    return float(_laplacian(gray).var() / mean**2) if mean else 0.0


def best_focus(stack: npt.ArrayLike) -> int:
    """The sharpest plane of a focal stack.

    Parameters
    ----------
    stack
        (F, Y, X) gray values.

    Returns
    -------
    int
        Index of the plane with the highest `sharpness`; the first one in a tie.
    """
    return int(np.argmax([sharpness(plane) for plane in np.asarray(stack)]))


def embryo_focus(stack: npt.ArrayLike) -> int:
    """The plane in which the embryo is sharpest, even if a well's wall or debris is sharper in another.

    The measure of `best_focus`, within the part of the image that is textured over a large area in the mean of all
    planes, and with the few strongest edges limited.

    Parameters
    ----------
    stack
        (F, Y, X) gray values.

    Returns
    -------
    int
        Index of the plane; the first one in a tie.
    """
    planes = np.asarray(stack, dtype=np.float64)
    laplacians = np.stack([_laplacian(plane) for plane in planes])
    limit = np.percentile(np.abs(laplacians), EDGE_PERCENTILE)
    limited = np.clip(laplacians, -limit, limit)
    region = _textured(limited)
    means = np.array([plane[1:-1, 1:-1][region].mean() for plane in planes])
    scores = np.array([laplacian[region].var() for laplacian in limited])
    return int(np.argmax(np.divide(scores, means**2, out=np.zeros_like(scores), where=means != 0)))


def _textured(laplacians: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    texture = gaussian_filter(np.abs(laplacians).mean(axis=0), REGION_PX, mode="nearest")
    region: Array = texture >= 0.6 * texture.max()
    return region


def extended_depth_of_field(stack: npt.ArrayLike) -> Array:
    """One image in which every part is as sharp as in its sharpest plane.

    Planes are averaged with the square of their local sharpness (squared Laplacian over `SMOOTHING_PX`) as weights:
    where one plane is sharp, it dominates, and where none is, they blend seamlessly.

    Parameters
    ----------
    stack
        (F, Y, X) gray values.

    Returns
    -------
    ndarray
        (Y, X), same dtype; every pixel lies between the darkest and the brightest of the planes there.
    """
    from scipy.ndimage import gaussian_filter

    planes = np.asarray(stack)
    energy = np.stack([gaussian_filter(_energy(plane), SMOOTHING_PX, mode="nearest") for plane in planes])
    floor = np.percentile(energy, 20) + np.finfo(np.float64).tiny ** 0.25
    weights = (energy + floor) ** 2
    mean = (weights * planes).sum(axis=0) / weights.sum(axis=0)
    rounded = mean if planes.dtype.kind == "f" else np.rint(mean)
    sharp: Array = np.clip(rounded, planes.min(axis=0), planes.max(axis=0)).astype(planes.dtype)
    return sharp


def focus_image(image: EmbryoImage, how: Literal["best", "edf"]) -> EmbryoImage:
    """The same image without focal planes; for a time-lapse each frame is computed when needed.

    Parameters
    ----------
    image
        Image with an axis F.
    how
        ``best``: the plane in which the embryo is sharpest (`embryo_focus`), per frame. ``edf``: extended depth of
        field.

    Returns
    -------
    EmbryoImage
        Axes YX or TYX; the method is in ``metadata["focus"]``.
    """
    if "F" not in image.axes:
        raise ValueError(f"{image.name}: it has the axes {image.axes}; focal planes (F) are needed to choose from")
    kept = {key: value for key, value in image.metadata.items() if key != "rgb"} | {"focus": how}
    changes = {"axes": image.axes.replace("F", ""), "focus_um": None}
    if image.axes == "TFYX":
        return image.with_data(_each_frame(image.data, how), metadata=kept, **changes)
    stack = np.asarray(image.data)
    if how == "best":
        kept["focus_plane"] = embryo_focus(stack)
        return image.with_data(stack[kept["focus_plane"]], metadata=kept, **changes)
    return image.with_data(extended_depth_of_field(stack), metadata=kept, **changes)


def _each_frame(data: Any, how: str) -> Any:
    import dask.array

    lazy = dask.array.asarray(data).rechunk((1, *data.shape[1:]))
    return lazy.map_blocks(_focus_block, how, drop_axis=1, dtype=data.dtype, meta=np.empty((0, 0, 0), data.dtype))


def _focus_block(block: Array, how: str) -> Array:
    """(1, F, Y, X) -> (1, Y, X)."""
    stack = block[0]
    return (stack[embryo_focus(stack)] if how == "best" else extended_depth_of_field(stack))[None]


def _laplacian(gray: Array) -> Array:
    """Laplacian of the pixels that have four neighbors."""
    neighbors = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    laplacian: Array = neighbors - 4 * gray[1:-1, 1:-1]
    return laplacian


def _energy(plane: Array) -> Array:
    """Squared Laplacian of the same size as the plane."""
    return _laplacian(np.pad(plane.astype(np.float64), 1, mode="edge")) ** 2
