"""The families of networks by name, in ``FAMILIES``. Nothing here needs torch."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, SerializeAsAny

from napari_embryo.families import inception, regdeeplab, resanet, shapecode, unet, vqamodal
from napari_embryo.families.classes import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.families.family import Family, MapInfo, NetworkSettings, Settings
from napari_embryo.families.inception import InceptionSettings
from napari_embryo.families.regdeeplab import RegDeepLabSettings
from napari_embryo.families.resanet import ResANetSettings
from napari_embryo.families.shapecode import ShapeCodeSettings
from napari_embryo.families.unet import UNetSettings
from napari_embryo.families.vqamodal import VQAmodalSettings

__all__ = [
    "BLASTOCYST_CLASSES",
    "DEFAULT",
    "FAMILIES",
    "FRAGMENT_CLASSES",
    "Family",
    "InceptionSettings",
    "MapInfo",
    "ModelSettings",
    "NetworkSettings",
    "RegDeepLabSettings",
    "ResANetSettings",
    "Settings",
    "ShapeCodeSettings",
    "UNetSettings",
    "VQAmodalSettings",
    "network_settings",
    "segmenting_families",
    "shape_code_families",
]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        resanet.FAMILY,
        regdeeplab.FAMILY,
        vqamodal.FAMILY,
        shapecode.FAMILY,
        unet.FAMILY,
        inception.FAMILY,
    )
}
"""All families, in the order in which lists show them."""

DEFAULT = resanet.FAMILY.name
"""The default family."""


def segmenting_families() -> tuple[str, ...]:
    """Names of the families that draw masks."""
    return tuple(name for name, family in FAMILIES.items() if family.draws)


def shape_code_families() -> tuple[str, ...]:
    """Names of the families whose weights are or may contain a shape code."""
    return tuple(name for name, family in FAMILIES.items() if family.has_shape_code)


def _is_known(name: Any) -> Any:
    if name not in FAMILIES:
        given = "no family" if name is None else repr(name)
        raise ValueError(f"{given} was given; choose {' or '.join(FAMILIES)}")
    return name


class _Named(BaseModel):
    """Validates the family within a network's settings, so that an error names its location."""

    family: Annotated[Any, AfterValidator(_is_known)]


def network_settings(given: Any) -> Any:
    """Validate a network's settings as the class of their family; anything but a mapping is returned unchanged.

    Raises
    ------
    ValidationError
        If the family is unknown, or its settings are invalid.
    """
    if not isinstance(given, Mapping):
        return given
    name = _Named.model_validate({"family": given.get("family")}).family
    return FAMILIES[name].settings.model_validate(given)


ModelSettings = Annotated[SerializeAsAny[NetworkSettings], BeforeValidator(network_settings)]
"""A field for the settings of a network of any family."""
