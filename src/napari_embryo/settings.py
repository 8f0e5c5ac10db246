"""Every setting once: typed, bounded, explained.

The form, the command line, a checkpoint and a recipe all read these classes; the settings of the networks are in
:mod:`napari_embryo.families`. Nothing here knows torch, files or a window.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, field_validator, model_validator

from napari_embryo.families import (
    DEFAULT,
    FAMILIES,
    ModelSettings,
    Settings,
    segmenting_families,
    shape_code_families,
)

GRADES = {"A": (0.0, 0.10), "B": (0.10, 0.25), "C": (0.25, 0.50), "D": (0.50, 1.0)}
"""Fragmentation grades and their intervals of the ratio (docs/decisions.md, "Grade boundaries")."""

BUNDLED = "bundled"
"""The weights that ship with the program, wherever weights can be named."""
RESERVED_NAMES = (BUNDLED, "imagenet", "random")
"""Starting weights other than models of the user, which therefore cannot have these names."""

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Fit = Literal["letterbox", "stretch"]
Layout = Literal["auto", "labelme", "coco", "kins", "saeedi", "masks", "labels", "grades", "napari", "empty"]


class Preprocessing(Settings):
    """How an image becomes the network's input; stored in the checkpoint, the same in training and use."""

    height: int = Field(288, ge=32, le=4096, description="Height of the network's input in pixels.")
    width: int = Field(320, ge=32, le=4096, description="Width of the network's input in pixels.")
    fit: Fit = Field(
        "letterbox",
        description="letterbox keeps the aspect ratio and pads; stretch is the plain resize of the ResA-Net paper.",
    )
    low_percentile: float = Field(
        0.5, ge=0, lt=50, description="Gray value that becomes black, as a percentile of the image."
    )
    high_percentile: float = Field(
        99.5, gt=50, le=100, description="Gray value that becomes white, as a percentile of the image."
    )
    look_again_below: float = Field(
        0.15,
        ge=0,
        le=1,
        description="A second, closer look is taken when the embryo and its margin fill less than this share of the "
        "image's area.",
    )

    @property
    def net_hw(self) -> tuple[int, int]:
        return self.height, self.width


def _draws(family: str) -> str:
    if family not in segmenting_families():
        *others, last = map(repr, segmenting_families())
        raise ValueError(f"{family!r} was given; choose {', '.join(others)} or {last}")
    return family


SegmentingFamily = Annotated[str, AfterValidator(_draws)]
"""Name of a family that draws masks."""
FAMILIES_SAID = "; ".join(f"{name} finds {FAMILIES[name].about}" for name in segmenting_families())
"""What each of these families finds, for the help."""


class SegmentSettings(Settings):
    """What one run of the segmentation needs to know."""

    family: SegmentingFamily = Field(
        DEFAULT,
        description=f"Family of networks whose bundled weights are used: {FAMILIES_SAID}. Other weights state their "
        "own family.",
        json_schema_extra={"enum": list(segmenting_families())},
    )
    weights: str = Field(
        BUNDLED, description="'bundled', the name of one of your models, or the path of a .safetensors checkpoint."
    )
    ratio_weights: str = Field(
        "",
        description="For fragments: other weights that estimate the ratio while the first ones draw the masks, as the "
        "paper recommends. Empty: the same weights do both.",
    )
    device: Device = Field("auto", description="auto uses the graphics card if there is one.")
    precision: Precision = Field("auto", description="auto: bfloat16 if the processor computes it natively.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a pixel belongs to a class.")
    views: Literal[1, 2, 4, 8] = Field(
        1,
        description="Number of mirrored and rotated views of the image to average over: that many times slower, "
        "somewhat better. Attention maps are those of the unchanged image.",
    )
    one_embryo: bool = Field(
        True, description="Keep only the largest embryo of an image; leave out parts of a neighbor and dirt."
    )
    batch_size: int = Field(
        1, ge=1, le=256, description="Number of frames computed together; halved when memory runs out."
    )
    maps: tuple[str, ...] = Field(
        FAMILIES[DEFAULT].usual_maps,
        description="Attention maps to keep; empty for none. Not every family has some.",
    )
    grad_cam: str = Field(
        "",
        description="Layer for one Grad-CAM per class in addition to the attention maps, such as 'encoder 1/32'; empty "
        "for none. 'last' only redraws the prediction.",
    )

    @model_validator(mode="before")
    @classmethod
    def _maps_of_the_family_by_default(cls, given: Any) -> Any:
        named = FAMILIES.get(given["family"]) if isinstance(given, dict) and "family" in given else None
        return given if named is None else {"maps": named.usual_maps, **given}

    @model_validator(mode="after")
    def _only_a_ratio_has_weights_of_its_own(self) -> "SegmentSettings":
        """If no family is named, that of other weights than the bundled ones is known only once they are loaded."""
        is_known = self.weights == BUNDLED or "family" in self.model_fields_set
        if self.ratio_weights and is_known and not FAMILIES[self.family].tells_a_ratio:
            raise ValueError(
                f"ratio_weights were given, but the family {self.family} estimates no ratio; leave ratio_weights empty"
            )
        return self


class BatchSettings(Settings):
    """Settings of a run over many images, apart from how each is segmented."""

    segment: SegmentSettings = Field(
        SegmentSettings(maps=()), description="How every image is segmented; attention maps are written on request."
    )
    include: tuple[str, ...] = Field(
        (), description="Only files whose name or path matches one of these patterns, such as *.png or day5/*."
    )
    exclude: tuple[str, ...] = Field((), description="No files whose name or path matches one of these patterns.")
    grouping: Literal["auto", "stack", "separate"] = Field(
        "auto", description="Files of a folder: grouped by their names, all of them one stack, or each on its own."
    )
    focus: Literal["all", "best", "edf"] = Field(
        "best", description="Of focal planes: the sharpest one, or one image with extended depth of field."
    )
    pixel_size_um: tuple[PositiveFloat, PositiveFloat] | None = Field(
        None, description="Height and width of a pixel in micrometers; used instead of what the files say."
    )
    axes: str | None = Field(None, description="What the axes of stacks are, such as TYX or ZYX.")
    hours_per_frame: float | None = Field(None, gt=0, description="Hours between two frames.")
    first_hour: float | None = Field(None, description="Hours after insemination at the first frame.")
    spacing_um: float | None = Field(None, gt=0, description="Micrometers between two focal planes.")
    gaps: Literal["leave out", "empty"] = Field(
        "leave out", description="Missing runs of a time-lapse: left out (hours keep the gap), or empty frames."
    )
    overlays: bool = Field(True, description="Write an overlay of each image with what was found drawn over it.")


class DataSettings(Settings):
    """Which annotated pictures to learn from, and which embryos to keep aside."""

    folders: tuple[str, ...] = Field((), description="Folders of annotated images.")
    layout: Layout = Field(
        "auto",
        description="How the annotations are stored: LabelMe or COCO JSON, KINS (amodal COCO), Saeedi et al. (GT_ICM/, "
        "GT_TE/, GT_ZP/), images/ with masks/, label images beside the images (NAME_masks, NAME_cp_masks), a CSV of "
        "grades, samples saved from napari, or nothing but a list of empty images (empty.txt). auto looks at the "
        "files.",
    )
    without_annotations: Literal["skip", "empty"] = Field(
        "skip",
        description="What an image means whose annotation holds nothing: skip it, or learn that it shows no embryo. "
        "Single images can be named in a file empty.txt in their folder.",
    )
    embryo_pattern: str = Field(
        "",
        description="Regular expression for file names; its group 'embryo' names the embryo, all images of which "
        "stay on one side of the split. Empty: the naming of known clinics and incubators, or else the file name.",
    )
    embryo_table: str = Field(
        "", description="CSV with the columns image and embryo; takes precedence over the pattern."
    )
    validation: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the embryos kept aside for validation; 0: learn from all, without knowing how well.",
    )
    test: float = Field(0.0, ge=0, lt=1, description="Share of the embryos kept aside and never looked at.")
    folds: int = Field(0, ge=0, le=50, description="Number of cross-validation folds to use instead; 0 for none.")
    fold: int = Field(0, ge=0, le=49, description="Which fold of the cross-validation to validate on, from 0.")
    seed: int = Field(0, ge=0, description="Random seed of the split.")
    only_train: tuple[str, ...] = Field(
        (),
        description="Names of folders used only for training, never for validation, such as drawn images.",
    )
    only_validation: tuple[str, ...] = Field(
        (),
        description="Names of folders used only for validation, never for training, such as another clinic's.",
    )
    repeats: dict[str, int] = Field(
        default_factory=dict,
        description="How many times an epoch visits the images of a folder, by the folder's name.",
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DataSettings":
        if not self.folds and self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; keep their sum below 1"
            )
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} was given; use at least two folds, counted from 0")
        return self

    @model_validator(mode="after")
    def _a_folder_learns_or_judges(self) -> "DataSettings":
        if both := sorted(set(self.only_train) & set(self.only_validation)):
            raise ValueError(
                f"only_train and only_validation both name {', '.join(both)}; a folder can be in only one of them"
            )
        return self


class Augmentation(Settings):
    """How samples are altered at random while the network learns; 0 everywhere (zoom 1) leaves them as they are."""

    flips: bool = Field(True, description="Mirror left-right and up-down, each half of the time.")
    rotation: float = Field(180, ge=0, le=180, description="Largest rotation in degrees, in either direction.")
    zoom_out: float = Field(0.65, gt=0, le=1, description="Smallest scale.")
    zoom_in: float = Field(1.25, ge=1, le=4, description="Largest scale.")
    shift: float = Field(0.12, ge=0, le=0.5, description="Largest shift, as a share of the image.")
    shear: float = Field(6, ge=0, le=45, description="Largest shear in degrees.")
    crop: float = Field(
        0.5, ge=0, le=1, description="How often a crop around the embryo is shown instead of the whole image."
    )
    photometric: float = Field(
        1.0, ge=0, le=2, description="Strength of gamma, contrast, brightness, uneven light, blur and noise."
    )
    invert: float = Field(0.1, ge=0, le=1, description="How often dark and bright are swapped.")
    wells: float = Field(
        0.35, ge=0, le=1, description="How often an embryo from a microscope is placed into a drawn incubator well."
    )
    hide: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How often part of a cell's silhouette is hidden, so that a shape code also learns to complete it.",
    )


class TrainSettings(Settings):
    """One training run (ResA-Net's paper: Adam 1e-4, batch 16, 100 epochs; ours differs, see the model card)."""

    epochs: int = Field(30, ge=1, le=100_000, description="Number of passes over the training images.")
    batch_size: int = Field(8, ge=1, le=1024, description="Samples per step; computed in parts if memory runs out.")
    optimizer: Literal["adamw", "adam"] = Field(
        "adamw", description="Optimizer; adam applies weight decay as an L2 penalty, as in the papers."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Highest learning rate of the decoder.")
    encoder_rate: float = Field(
        0.2, ge=0, le=1, description="Learning rate of the encoder as a share of the decoder's; 0 freezes the encoder."
    )
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay.")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        "one-cycle", description="How the learning rate changes during training."
    )
    warm_up: float = Field(
        0.1, gt=0, lt=1, description="Share of the steps during which a one-cycle learning rate rises."
    )
    clip_norm: float = Field(
        5.0, ge=0, le=1000, description="Gradients with a larger norm are scaled down to this norm; 0 for no limit."
    )
    regression_rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Learning rate of the regression head as a share of the decoder's; at a rate of 1e-3 the head "
        "collapses to a single answer.",
    )
    parts: Literal["all", "decoder", "head", "regression"] = Field(
        "all",
        description="Which parts learn; the others stay exactly as they are. head: the last layer and the regression "
        "head, or the mask head and the refinement of a network that finds cells; regression: the regression head "
        "alone. The shape code that a network draws with never learns.",
    )
    frozen_batch_norm: bool = Field(False, description="Keep the statistics of batch normalization, for small batches.")
    loss_weights: dict[str, float] = Field(
        default_factory=dict, description="Weight of each loss by its name; 1 by default, 0 leaves the loss out."
    )
    patience: int = Field(0, ge=0, le=100_000, description="Stop after this many epochs without improvement; 0: never.")
    device: Device = Field("auto", description="auto uses the graphics card if there is one.")
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of graphics cards that share every batch; the result is that of one card.",
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 if the device computes it natively, float16 on other NVIDIA cards, never float16 "
        "on a processor.",
    )
    workers: int = Field(
        0, ge=0, le=64, description="Number of processes that prepare samples; 0: a thread of the main process."
    )
    seed: int = Field(0, ge=0, description="Random seed of the order, the augmentation and the dropout.")


class Recipe(Settings):
    """A whole training run: as YAML it can be kept, sent to a colleague and run again."""

    name: str = Field(
        "finetuned",
        pattern=r"^[^\W_][\w.-]*$",
        description="Name of the model: letters, digits, '.', '_' and '-', starting with a letter or a digit.",
    )
    model: ModelSettings = Field(
        default_factory=FAMILIES[DEFAULT].settings,
        description="The network.",
    )
    preprocessing: Preprocessing = Field(default_factory=Preprocessing, description="How images are prepared.")
    start: str = Field(
        BUNDLED,
        description="'bundled' weights, 'imagenet' for the encoder alone, 'random', the name of one of your models, or "
        "the path of a checkpoint. Bundled weights and checkpoints bring their own network and preprocessing.",
    )
    backbone: str = Field("", description="safetensors file of an ImageNet ResNet-50, for start: imagenet.")
    shape_code: str = Field(
        "",
        description="Weights of a trained shape code for a network that draws with one: a model's name or path. Empty: "
        "that of the start, or else the bundled one.",
    )
    data: DataSettings = Field(default_factory=DataSettings, description="Images, and the split by embryo.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="How images are altered at random.")
    training: TrainSettings = Field(default_factory=TrainSettings, description="How the network learns.")

    @field_validator("name")
    @classmethod
    def _name_means_no_other_start(cls, name: str) -> str:
        if name.casefold() in RESERVED_NAMES:
            raise ValueError(
                f"{name!r} was given, but {', '.join(RESERVED_NAMES)} are reserved for starting weights, so no model "
                "can have such a name; choose another one"
            )
        return name

    @model_validator(mode="after")
    def _only_who_draws_with_a_shape_code_is_given_one(self) -> "Recipe":
        if self.shape_code and self.model.shape_code is None:
            able = [name for name in shape_code_families() if FAMILIES[name].draws]
            raise ValueError(
                f"shape_code: {self.shape_code!r} was given, but this network draws with none; leave it empty, or "
                f"choose a network that does ({', '.join(able)} with its default head)"
            )
        return self
