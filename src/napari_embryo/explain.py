"""Explain what a network found: attention maps and Grad-CAM."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_embryo.families import FAMILIES, MapInfo
from napari_embryo.geometry import Geometry
from napari_embryo.models import Network
from napari_embryo.results import AttentionMap

GRAD_CAM = "Grad-CAM"


def attention_maps(
    family: str, outputs: Mapping[str, Tensor], geometry: Geometry, names: Sequence[str]
) -> tuple[AttentionMap, ...]:
    """The maps called ``names`` from the outputs for one image (no batch axis), in the requested order.

    Raises
    ------
    ValueError
        If the family has no map of this name; the message lists those it has.
    """
    known = FAMILIES[family].maps
    has = [name for name, info in known.items() if _is_there(info, outputs)]
    unknown = [name for name in names if name not in has]
    if unknown:
        raise ValueError(f"no attention map {', '.join(unknown)} in {family}; it has {', '.join(has) or 'none'}")
    return tuple(_attention_map(name, known[name], outputs, geometry) for name in names)


def _is_there(info: MapInfo, outputs: Mapping[str, Tensor]) -> bool:
    return info.key in outputs and (info.channel or 0) < len(outputs[info.key])


def check_names(model: Network, names: Sequence[str], layer: str = "") -> None:
    """Check that ``model`` has the requested maps and Grad-CAM layer, before anything is computed.

    Raises
    ------
    ValueError
        If something is unknown; the message names it and what is available.
    """
    known = model.map_names()
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no attention map {', '.join(unknown)}; these weights have {', '.join(known) or 'none'}")
    if layer:
        _cam_layer(model, layer)


def _cam_layer(model: Network, layer: str) -> nn.Module:
    layers = model.cam_layers()
    if not layers:
        raise ValueError(
            f"no layer {layer!r}: networks of this family have no layers for Grad-CAM; leave the setting empty"
        )
    if layer not in layers:
        raise ValueError(f"no layer {layer!r}; Grad-CAM is available for {', '.join(layers)}")
    return layers[layer]


def _attention_map(name: str, info: MapInfo, outputs: Mapping[str, Tensor], geometry: Geometry) -> AttentionMap:
    channels = outputs[info.key].float().cpu().numpy()
    grid = channels.mean(0) if info.channel is None else channels[info.channel]
    return AttentionMap(name, grid.astype(np.float32), info.window, info.meaning, geometry)


def grad_cam(model: Network, image: Tensor, class_index: int, geometry: Geometry, layer: str = "last") -> AttentionMap:
    """Seg-Grad-CAM of one class at one layer (Selvaraju et al. 2017; Vinogradova et al. 2020), by captum.

    The score is the sum of the class's logits over the pixels predicted positive, or over all pixels if there are none.
    The map is divided by its maximum; entirely negative evidence gives a map of zeros.

    Caveat: at the layer that feeds the 1 x 1 classifier (``"last"``, the choice of the ResA-Net paper) Grad-CAM only
    redraws the prediction, ``relu(logit - bias)`` up to scale, and explains nothing. Also look at a deeper layer.

    Parameters
    ----------
    model
        In eval mode.
    image
        (1, 1, h, w) normalized network input.
    class_index
        Index of the output.
    geometry
        Mapping back to the image.
    layer
        One of ``model.cam_layers()``.

    Raises
    ------
    ValueError
        If the layer is unknown; the message lists the known ones.
    """
    from captum.attr import LayerGradCam  # importing it takes seconds

    method = LayerGradCam(lambda x: _positive_score(model(x)["logits"][:, class_index]), _cam_layer(model, layer))
    with torch.enable_grad():
        cam = method.attribute(image.detach().clone().requires_grad_(), relu_attributions=True)
    grid = cam[0, 0].detach().float().cpu().numpy()
    peak = float(grid.max())
    grid = grid / peak if peak > 1e-12 else np.zeros_like(grid)
    meaning = f"evidence for the class at {layer}, divided by its maximum"
    return AttentionMap(f"{GRAD_CAM} {layer}", grid, (0, 1), meaning, geometry)


def _positive_score(logits: Tensor) -> Tensor:
    """(B, h, w) -> (B,)."""
    positive = (logits > 0).float()
    none = positive.sum((1, 2), keepdim=True) == 0
    return (logits * torch.where(none, torch.ones_like(positive), positive)).sum((1, 2))


def combined_heat_map(maps: Sequence[AttentionMap]) -> AttentionMap:
    """The ResA-Net paper's combined map (section 4.3.1): the pixelwise maximum of the classes' Grad-CAMs."""
    combined: npt.NDArray[np.float32] = np.max([m.grid for m in maps], axis=0)
    meaning = "largest evidence for any class"
    return AttentionMap(f"{GRAD_CAM} combined", combined, (0, 1), meaning, maps[0].geometry)


def grad_cam_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of :func:`grad_cams`."""
    return (*(f"{GRAD_CAM} {name}" for name in classes), f"{GRAD_CAM} combined")


def grad_cams(
    model: Network, image: Tensor, classes: Sequence[str], geometry: Geometry, layer: str
) -> tuple[AttentionMap, ...]:
    """Grad-CAM of every class at one layer, named after the class, and the combined map."""
    maps = [
        replace(grad_cam(model, image, i, geometry, layer), name=name)
        for i, name in enumerate(grad_cam_names(classes)[:-1])
    ]
    return (*maps, combined_heat_map(maps))
