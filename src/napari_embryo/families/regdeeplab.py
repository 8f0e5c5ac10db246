"""AttnRegDeepLab: fragments of a cleavage-stage embryo, the embryo, and the fragmentation ratio."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from napari_embryo.families.classes import FRAGMENT_CLASSES, fragment_classes_only
from napari_embryo.families.family import Family, MapInfo, NetworkSettings


class RegDeepLabSettings(NetworkSettings):
    """AttnRegDeepLab: an attention-gated DeepLabV3+ for fragments, with a regression head for their ratio."""

    family: Literal["regdeeplab"] = "regdeeplab"
    classes: tuple[str, ...] = Field(FRAGMENT_CLASSES, description="Fragments and the whole embryo, in this order.")
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the encoder strides: v1.5 as torchvision's weights expect, v1 as in the network of He et "
        "al.",
    )
    output_stride: Literal[8, 16] = Field(
        16,
        description="Stride of the deepest features; the paper says 16 but describes 8, which takes three times as "
        "long.",
    )
    gate: bool = Field(
        True, description="Attention gate on the skip connection of layer 1; without it, a plain DeepLabV3+."
    )
    regression: bool = Field(True, description="A head that estimates the ratio from the deepest features.")
    inject: Literal["none", "1x1", "3x3"] = Field(
        "none",
        description="How the features of the regression head join the last convolution; 1x1 shifts the threshold of "
        "the mask.",
    )
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout in the regression head.")

    _classes = field_validator("classes")(fragment_classes_only)

    @model_validator(mode="after")
    def _only_what_is_regressed_is_injected(self) -> "RegDeepLabSettings":
        if self.inject != "none" and not self.regression:
            raise ValueError(f"inject: {self.inject!r} needs the regression head; set regression: true or inject: none")
        return self

    @property
    def tells_a_ratio(self) -> bool:
        """Whether it has the regression head."""
        return self.regression


MAPS = {
    "AG": MapInfo("AG", None, (0, 1), "attention gate on the 1/4 skip connection: how much fine detail passes"),
}

FAMILY = Family(
    settings=RegDeepLabSettings,
    title="AttnRegDeepLab (fragments)",
    finds="fragments",
    about="the fragments of a cleavage-stage embryo, their ratio and grade",
    recipes={"bundled": "regdeeplab-finetune", "imagenet": "regdeeplab-from-imagenet"},
    tells_a_ratio=True,
    ships=True,
    maps=MAPS,
    usual_maps=("AG",),
    cam_layers=("encoder 1/16", "ASPP", "decoder 1/4", "last"),
    additions={"regression": False, "inject": "none"},
)
