"""The networks that settings name."""

from napari_embryo import explain
from napari_embryo.families import FAMILIES
from napari_embryo.models import checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError
from napari_embryo.predict import Predictor
from napari_embryo.settings import SegmentSettings


def load_predictor(settings: SegmentSettings) -> Predictor:
    """The network that ``settings`` name, on its device.

    The bundled weights are those of the family in the settings; other weights say themselves which family they are of.

    Raises
    ------
    FileNotFoundError, CheckpointError, ValueError
        When there are no such weights, they are not ours, draw nothing, or are of another family than was asked for;
        when they have no such map or layer; when the device is not there.
    """
    loaded = _loaded(settings.weights, settings)
    settings = _as_loaded(settings, loaded)
    explain.check_names(loaded.model, settings.maps, settings.grad_cam)
    return Predictor(loaded, settings, _quantifier(settings) if settings.ratio_weights else None)


def _as_loaded(settings: SegmentSettings, loaded: Checkpoint) -> SegmentSettings:
    """Of the checkpoint's family. The usual maps become those that these weights have; others must be there."""
    family = FAMILIES[loaded.info.model.family]
    maps = settings.maps
    if maps == FAMILIES[settings.family].usual_maps:
        maps = tuple(name for name in family.usual_maps if name in loaded.model.map_names())
    return settings.model_copy(update={"family": family.name, "maps": maps})


def _loaded(weights: str, settings: SegmentSettings) -> Checkpoint:
    loaded = checkpoint.load(weights, settings.family)
    family = FAMILIES[loaded.info.model.family]
    if "family" in settings.model_fields_set and family.name != settings.family:
        raise CheckpointError(
            f"{weights}: these are weights of {family.name!r}, but {settings.family!r} was asked for; leave the family "
            "out or choose other weights"
        )
    if not family.draws:
        raise CheckpointError(f"{weights}: these are weights of {family.name!r}, which draws no masks on a picture")
    return loaded


def _quantifier(settings: SegmentSettings) -> Predictor:
    if not FAMILIES[settings.family].tells_a_ratio:
        raise CheckpointError(
            f"ratio_weights were given, but {settings.weights} is of the family {settings.family}, which tells no "
            "ratio; leave ratio_weights empty"
        )
    own = {"weights": settings.ratio_weights, "ratio_weights": "", "maps": (), "grad_cam": ""}
    loaded = _loaded(settings.ratio_weights, settings)
    if not loaded.info.model.tells_a_ratio:
        raise CheckpointError(f"{settings.ratio_weights}: these weights have no regression head to estimate a ratio")
    return Predictor(loaded, settings.model_copy(update=own), role="the network of the ratio")
