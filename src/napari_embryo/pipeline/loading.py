"""Load the networks named by settings."""

from napari_embryo import explain
from napari_embryo.families import FAMILIES
from napari_embryo.models import checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError
from napari_embryo.predict import Predictor
from napari_embryo.settings import SegmentSettings


def load_predictor(settings: SegmentSettings) -> Predictor:
    """Load the network named by ``settings`` onto its device.

    Bundled weights are those of the family in the settings; other weights state their own family.

    Raises
    ------
    FileNotFoundError, CheckpointError, ValueError
        If there are no such weights, they are invalid, draw no masks, or belong to another family than requested; if
        they have no such map or layer; or if the device is unavailable.
    """
    loaded = _loaded(settings.weights, settings)
    settings = _as_loaded(settings, loaded)
    explain.check_names(loaded.model, settings.maps, settings.grad_cam)
    return Predictor(loaded, settings, _quantifier(settings) if settings.ratio_weights else None)


def _as_loaded(settings: SegmentSettings, loaded: Checkpoint) -> SegmentSettings:
    """Settings for the checkpoint's family. Default maps are reduced to those available; others must exist."""
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
            f"{weights}: these are weights of {family.name!r}, but {settings.family!r} was requested; omit the family "
            "or choose other weights"
        )
    if not family.draws:
        raise CheckpointError(f"{weights}: these are weights of {family.name!r}, which draws no masks")
    return loaded


def _quantifier(settings: SegmentSettings) -> Predictor:
    if not FAMILIES[settings.family].tells_a_ratio:
        raise CheckpointError(
            f"ratio_weights were given, but {settings.weights} is of the family {settings.family}, which estimates no "
            "ratio; leave ratio_weights empty"
        )
    own = {"weights": settings.ratio_weights, "ratio_weights": "", "maps": (), "grad_cam": ""}
    loaded = _loaded(settings.ratio_weights, settings)
    if not loaded.info.model.tells_a_ratio:
        raise CheckpointError(f"{settings.ratio_weights}: these weights have no regression head to estimate a ratio")
    return Predictor(loaded, settings.model_copy(update=own), role="the network of the ratio")
