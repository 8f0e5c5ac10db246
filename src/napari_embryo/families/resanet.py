"""ResA-Net: inner cell mass, trophectoderm and zona pellucida of a blastocyst."""

from typing import Literal

from pydantic import Field, model_validator

from napari_embryo.families.classes import BLASTOCYST_CLASSES
from napari_embryo.families.family import Family, MapInfo, NetworkSettings


class ResANetSettings(NetworkSettings):
    """ResA-Net: a ResNet-50 encoder-decoder with spatial, channel and scale attention."""

    family: Literal["resanet"] = "resanet"
    classes: tuple[str, ...] = Field(
        BLASTOCYST_CLASSES,
        min_length=1,
        description="Classes with one binary output each; expert masks overlap, so there is no softmax over them.",
    )
    width: Literal["base", "wide"] = Field(
        "base", description="Number of decoder channels: 16 to 128 for base, 32 to 256 for wide."
    )
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the encoder strides: v1.5 as torchvision's weights expect, v1 as in the network of He et "
        "al.",
    )
    head: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="softmax is the paper's two-channel head (background, region), for one class only."
    )
    sa4: bool = Field(
        True, description="Attention gate on the finest skip connection (in the paper, but not in CA-Net's code)."
    )
    dual_gate: bool = Field(True, description="Two parallel gates in SA2 and SA3, as in CA-Net's code.")
    la_relu: bool = Field(
        True, description="CA-Net's ReLU before the sigmoid of the scale attention: its maps then lie in [0.5, 1)."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of whole channels in the center and in CA1.")

    @model_validator(mode="after")
    def _softmax_is_one_class(self) -> "ResANetSettings":
        if self.head == "softmax" and len(self.classes) != 1:
            raise ValueError(
                f"head='softmax' is the paper's one-class network, but {len(self.classes)} classes were given "
                f"({', '.join(self.classes)}); name one class or use head='sigmoid'"
            )
        return self


def _gate(scale: int, name: str, channel: int | None, which: str = "") -> MapInfo:
    return MapInfo(name, channel, (0, 1), f"attention gate on the 1/{scale} skip connection{which}: which details pass")


MAPS = {
    "SA1": MapInfo("SA1", None, (0, 4), "non-local block: how much attention each place receives; 1 is uniform"),
    "SA2": _gate(8, "SA2", None, " (mean of both gates)"),
    "SA2a": _gate(8, "SA2", 0, " (first gate)"),
    "SA2b": _gate(8, "SA2", 1, " (second gate)"),
    "SA3": _gate(4, "SA3", None, " (mean of both gates)"),
    "SA3a": _gate(4, "SA3", 0, " (first gate)"),
    "SA3b": _gate(4, "SA3", 1, " (second gate)"),
    "SA4": _gate(2, "SA4", None),
    **{
        f"CA{i}": MapInfo(f"CA{i}", None, (-1, 1), f"channel attention {i}: above 0, features found here are amplified")
        for i in range(1, 5)
    },
    "LA": MapInfo("LA", None, (0, 1), "scale attention: mean weight of the four scales"),
    **{
        f"LA{i}": MapInfo("LA", i - 1, (0, 1), f"scale attention: weight of the features at 1/{2**i} of the input size")
        for i in range(1, 5)
    },
}

FAMILY = Family(
    settings=ResANetSettings,
    title="ResA-Net (blastocyst)",
    finds="blastocyst",
    about="the parts of a blastocyst (ICM, TE, ZP)",
    recipes={"bundled": "blastocyst-finetune", "imagenet": "blastocyst-from-imagenet"},
    ships=True,
    maps=MAPS,
    usual_maps=("SA2", "SA3", "SA4", "LA"),
    cam_layers=("encoder 1/32", "encoder 1/16", "decoder 1/16", "decoder 1/8", "decoder 1/4", "decoder 1/2", "last"),
)
