"""Every setting once: typed, bounded, explained.

The form, the command line, a checkpoint and a recipe all read these classes; nothing here knows torch, files or a
window.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

BLASTOCYST_CLASSES = ("ICM", "TE", "ZP")
"""Inner cell mass, trophectoderm, zona pellucida; their position + 1 is their label."""

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16"]
Fit = Literal["letterbox", "stretch"]


class Settings(BaseModel):
    """A frozen, validated value; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(Settings):
    """How an image becomes the network's input; stored in the checkpoint, the same in training and use."""

    height: int = Field(288, ge=32, le=4096, description="Height of the network's input in pixels.")
    width: int = Field(320, ge=32, le=4096, description="Width of the network's input in pixels.")
    fit: Fit = Field(
        "letterbox",
        description="letterbox keeps the aspect ratio and pads; stretch is the ResA-Net paper's plain resize.",
    )
    low_percentile: float = Field(0.5, ge=0, lt=50, description="Grey value taken as 0 (percentile of the image).")
    high_percentile: float = Field(99.5, gt=50, le=100, description="Grey value taken as 1 (percentile of the image).")

    @property
    def net_hw(self) -> tuple[int, int]:
        return self.height, self.width


class ResANetSettings(Settings):
    """ResA-Net: a ResNet-50 encoder-decoder with spatial, channel and scale attention."""

    family: Literal["resanet"] = "resanet"
    classes: tuple[str, ...] = Field(
        BLASTOCYST_CLASSES,
        min_length=1,
        description="One binary output each; expert masks overlap, so no softmax over them.",
    )
    width: Literal["base", "wide"] = Field("base", description="Decoder channels: base 16-128, wide 32-256.")
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the strides sit: v1.5 as torchvision's weights expect, v1 as in He et al.'s own network.",
    )
    head: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="softmax is the paper's two-channel (background, region) head; one class only."
    )
    sa4: bool = Field(True, description="Attention gate on the finest skip (in the paper, absent from CA-Net's code).")
    dual_gate: bool = Field(True, description="Two parallel gates in SA2 and SA3, as in CA-Net's code.")
    la_relu: bool = Field(True, description="CA-Net's ReLU before the scale-attention sigmoid: maps in [0.5, 1).")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of whole channels in the centre and in CA1.")

    @model_validator(mode="after")
    def _softmax_is_one_class(self) -> "ResANetSettings":
        if self.head == "softmax" and len(self.classes) != 1:
            raise ValueError(
                f"head='softmax' is the one-class network of the paper, but {len(self.classes)} classes were given "
                f"({', '.join(self.classes)}); name one class or use head='sigmoid'"
            )
        return self


class UNetSettings(Settings):
    """U-Net (Ronneberger et al. 2015), the paper's baseline, from random weights."""

    family: Literal["unet"] = "unet"
    classes: tuple[str, ...] = Field(BLASTOCYST_CLASSES, min_length=1, description="One binary output each.")
    base_channels: int = Field(64, ge=4, le=128, description="Channels of the first level; doubled four times.")


ModelSettings = Annotated[ResANetSettings | UNetSettings, Field(discriminator="family")]
MODEL_SETTINGS: TypeAdapter[ResANetSettings | UNetSettings] = TypeAdapter(ModelSettings)


class SegmentSettings(Settings):
    """What one run of the segmentation needs to know."""

    family: Literal["resanet"] = Field("resanet", description="Which family of networks.")
    weights: str = Field("bundled", description="'bundled', or the path of a .safetensors checkpoint.")
    device: Device = Field("auto", description="auto takes the graphics card where there is one.")
    precision: Precision = Field("auto", description="auto: bfloat16 where the processor computes it natively.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a pixel belongs to a class.")
    batch_size: int = Field(1, ge=1, le=256, description="Frames computed together; halved when memory runs out.")
    maps: tuple[str, ...] = Field(
        ("SA2", "SA3", "SA4", "LA"), description="Which attention maps to keep; none for none."
    )
    grad_cam: str = Field(
        "",
        description="Layer for a Grad-CAM per class beside the attention maps, such as 'encoder 1/32'; empty for none. "
        "'last' only redraws the prediction.",
    )


class TrainSettings(Settings):
    """One training run (ResA-Net's paper: Adam 1e-4, batch 16, 100 epochs; ours differs, see the model card)."""

    steps: int = Field(600, ge=1, description="Optimiser steps.")
    batch_size: int = Field(8, ge=2, description="Samples per step; batch normalisation needs two.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest rate of the decoder.")
    encoder_rate: float = Field(0.2, ge=0, le=1, description="The encoder's share of the rate.")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay.")
    warm_up: float = Field(0.1, gt=0, lt=1, description="Share of the steps in which the rate rises.")
    clip_norm: float = Field(5.0, gt=0, description="Largest gradient norm.")
    seed: int = Field(0, ge=0, description="Of the order and the augmentation.")
