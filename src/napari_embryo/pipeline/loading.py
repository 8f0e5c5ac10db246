"""The networks that settings name."""

from typing import Any

from napari_embryo import explain
from napari_embryo.models import checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError
from napari_embryo.predict import Predictor
from napari_embryo.settings import SegmentSettings


def load_predictor(settings: SegmentSettings) -> Predictor:
    """The network that ``settings`` name, on its device.

    Raises
    ------
    FileNotFoundError, CheckpointError, ValueError
        No such weights, not ours, of another family, without such a map or layer, or a device that is not there.
    """
    loaded = _loaded(settings.weights, settings.family)
    settings = _without_lacking_maps(settings, loaded)
    explain.check_names(loaded.model, settings.maps, settings.grad_cam)
    return Predictor(loaded, settings, _quantifier(settings) if settings.ratio_weights else None)


def _without_lacking_maps(settings: SegmentSettings, loaded: Checkpoint) -> SegmentSettings:
    """The family's usual maps are those that these weights have; a map that was asked for is missed."""
    model: Any = loaded.model
    usual = SegmentSettings(family=settings.family).maps
    if settings.maps != usual:
        return settings
    return settings.model_copy(update={"maps": tuple(name for name in usual if name in model.map_names())})


def _loaded(weights: str, family: str) -> Checkpoint:
    loaded = checkpoint.load(weights, family)
    if loaded.info.model.family != family:
        raise CheckpointError(
            f"{weights}: weights of {loaded.info.model.family!r} came; those of {family!r} are needed"
        )
    return loaded


def _quantifier(settings: SegmentSettings) -> Predictor:
    loaded = _loaded(settings.ratio_weights, settings.family)
    described: Any = loaded.info.model
    if not described.regression:
        raise CheckpointError(f"{settings.ratio_weights}: these weights have no regression head to tell a ratio")
    own = {"weights": settings.ratio_weights, "ratio_weights": "", "maps": (), "grad_cam": ""}
    return Predictor(loaded, settings.model_copy(update=own), role="the network of the ratio")
