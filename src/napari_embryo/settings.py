"""Every setting once: typed, bounded, explained.

The form, the command line, a checkpoint and a recipe all read these classes; nothing here knows torch, files or a
window.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

BLASTOCYST_CLASSES = ("ICM", "TE", "ZP")
"""Inner cell mass, trophectoderm, zona pellucida; their position + 1 is their label."""

FRAGMENT_CLASSES = ("fragment", "embryo")
"""Anucleate fragments, and the embryo they are a part of: the area of cells or fragments, the ratio's basis."""

GRADES = {"A": (0.0, 0.10), "B": (0.10, 0.25), "C": (0.25, 0.50), "D": (0.50, 1.0)}
"""Fragmentation grades and their intervals of the ratio (RegDeepLab: <10, 10-25, 25-50, >50 %). The lower end belongs
to B and C, the upper one to C (our decision)."""

RESERVED_NAMES = ("bundled", "imagenet", "random")
"""What a training can start from beside a model of the user's, which can therefore have none of these names."""

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Fit = Literal["letterbox", "stretch"]
Layout = Literal["auto", "labelme", "coco", "kins", "saeedi", "masks", "labels", "grades", "napari", "empty"]


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
    low_percentile: float = Field(0.5, ge=0, lt=50, description="Gray value taken as 0 (percentile of the image).")
    high_percentile: float = Field(99.5, gt=50, le=100, description="Gray value taken as 1 (percentile of the image).")

    look_again_below: float = Field(
        0.15,
        ge=0,
        le=1,
        description="A second, closer look is taken where the embryo with a margin fills less of the picture's area.",
    )

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
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of whole channels in the center and in CA1.")

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


def _classes_are_fixed(classes: tuple[str, ...]) -> tuple[str, ...]:
    if classes != FRAGMENT_CLASSES:
        raise ValueError(f"{', '.join(classes)} came; this family has {' and '.join(FRAGMENT_CLASSES)}")
    return classes


class RegDeepLabSettings(Settings):
    """AttnRegDeepLab: fragments and their ratio by an attention-gated DeepLabV3+ with a regression head."""

    family: Literal["regdeeplab"] = "regdeeplab"
    classes: tuple[str, ...] = Field(FRAGMENT_CLASSES, description="Fragments and the whole embryo, in this order.")
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the strides sit: v1.5 as torchvision's weights expect, v1 as in He et al.'s own network.",
    )
    output_stride: Literal[8, 16] = Field(
        16, description="Of the deepest features; the paper says 16 but describes 8, which takes three times as long."
    )
    gate: bool = Field(True, description="Attention gate on the layer-1 skip; without it: DeepLabV3+.")
    regression: bool = Field(True, description="A head that tells the ratio from the deepest features.")
    inject: Literal["none", "1x1", "3x3"] = Field(
        "none",
        description="What the regression head saw joins the last convolution; 1x1: it moves the mask's threshold.",
    )
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout in the regression head.")

    _classes = field_validator("classes")(_classes_are_fixed)

    @model_validator(mode="after")
    def _only_what_is_regressed_is_injected(self) -> "RegDeepLabSettings":
        if self.inject != "none" and not self.regression:
            raise ValueError(f"inject: {self.inject!r} needs the regression head; say regression: true or inject: none")
        return self


class InceptionSettings(Settings):
    """Inception v3 (Szegedy et al. 2016), RegDeepLab's baseline: the ratio alone, no masks, from random weights."""

    family: Literal["inception"] = "inception"
    classes: tuple[str, ...] = Field(FRAGMENT_CLASSES, description="What the ratio is of, and what it is a part of.")
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout before the last layer.")

    _classes = field_validator("classes")(_classes_are_fixed)


class ShapeCodeSettings(Settings):
    """VQ-VAE on binary masks: a silhouette as a small grid of codes."""

    family: Literal["shapecode"] = "shapecode"
    classes: tuple[str, ...] = Field(("cell",), min_length=1, max_length=1, description="Whose silhouettes.")
    side: Literal[32, 64] = Field(32, description="Pixels of the square that a silhouette's box is resized to.")
    grid: Literal[2, 4, 8] = Field(4, description="Codes along each side; a coarser grid is more of a shape prior.")
    codes: int = Field(128, ge=2, le=4096, description="Entries of the codebook.")
    dimension: int = Field(32, ge=4, le=256, description="Numbers of a code.")
    codebook: Literal["ema", "loss"] = Field(
        "ema", description="How codes learn: moving averages, dead ones revived, or the loss of van den Oord et al."
    )
    reconstruction: Literal["bce", "mse"] = Field(
        "bce", description="The paper's text says cross-entropy, its first equation prints squares."
    )


class VQAmodalSettings(Settings):
    """Mask R-CNN for complete silhouettes: an occlusion branch, a shape code, and a refinement."""

    family: Literal["vqamodal"] = "vqamodal"
    classes: tuple[str, ...] = Field(("cell",), min_length=1, description="What is found; the paper's embryos: cells.")
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the strides sit: v1.5 as torchvision's weights expect, v1 as in He et al.'s own network.",
    )
    head: Literal["vq", "fcn"] = Field("vq", description="vq: the shape code; fcn: Mask R-CNN's own mask head.")
    refine: bool = Field(True, description="Join the decoded silhouette with the cell's features; else it is the mask.")
    occlusion: Literal["none", "branch", "asn"] = Field(
        "branch",
        description="branch: a map of where cells overlap, learned beside; asn: KINS' classification of every cell.",
    )
    translucent: bool = Field(
        True, description="Overlap is where two complete cells lie; else where a cell's own visible part is missing."
    )
    shape: ShapeCodeSettings = Field(default_factory=ShapeCodeSettings, description="The frozen VQ-VAE.")
    code_loss: Literal["bce", "ce"] = Field("bce", description="bce: the paper's third equation; ce: one of K codes.")
    reduction: Literal["mean", "sum"] = Field(
        "mean", description="Of the losses; sum: the paper's literal equations, with its weight 0.01 of the occlusion."
    )
    smallest_anchor: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Side of the finest level's anchors as a share of the picture's; each next one's is twice that.",
    )
    score_threshold: float = Field(0.05, ge=0, le=1, description="Least score of a cell that is kept.")
    box_nms: float = Field(0.8, gt=0, le=1, description="Boxes that overlap more are one; 0.5 deletes real cells.")
    mask_nms: float = Field(
        0.4, gt=0, le=1, description="Masks that overlap more lower the score of the less sure one (Soft-NMS)."
    )
    detections: int = Field(20, ge=1, le=300, description="Most cells of a picture.")


OF_CELLS = frozenset(("vqamodal", "shapecode"))
"""Families that learn from single cells, whatever their classes are called."""

AnyModelSettings = (
    ResANetSettings | UNetSettings | RegDeepLabSettings | InceptionSettings | VQAmodalSettings | ShapeCodeSettings
)
ModelSettings = Annotated[AnyModelSettings, Field(discriminator="family")]
MODEL_SETTINGS: TypeAdapter[AnyModelSettings] = TypeAdapter(ModelSettings)


class SegmentSettings(Settings):
    """What one run of the segmentation needs to know."""

    family: Literal["resanet", "regdeeplab", "vqamodal", "unet"] = Field(
        "resanet",
        description="Which family of networks: resanet finds a blastocyst's parts, regdeeplab the fragments of a "
        "cleavage-stage embryo, vqamodal its cells, each with its whole outline; unet is the baseline, of which no "
        "weights ship.",
    )
    weights: str = Field(
        "bundled", description="'bundled', the name of a model of yours, or the path of a .safetensors checkpoint."
    )
    ratio_weights: str = Field(
        "",
        description="regdeeplab: other weights that tell the ratio while the first ones draw the fragments, as the "
        "paper recommends; empty: the same.",
    )
    device: Device = Field("auto", description="auto takes the graphics card where there is one.")
    precision: Precision = Field("auto", description="auto: bfloat16 where the processor computes it natively.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a pixel belongs to a class.")
    views: Literal[1, 2, 4, 8] = Field(
        1,
        description="Average over so many mirrored and turned views of the picture: as many times slower, "
        "somewhat better. The attention maps are those of the picture as it is.",
    )
    one_embryo: bool = Field(
        True, description="Keep the largest embryo of a picture; leave out parts of a neighbor or of dirt."
    )
    batch_size: int = Field(1, ge=1, le=256, description="Frames computed together; halved when memory runs out.")
    maps: tuple[str, ...] = Field(
        ("SA2", "SA3", "SA4", "LA"),
        description="Which attention maps to keep; none for none. A U-Net has none.",
    )
    grad_cam: str = Field(
        "",
        description="Layer for a Grad-CAM per class beside the attention maps, such as 'encoder 1/32'; empty for none. "
        "'last' only redraws the prediction.",
    )

    @model_validator(mode="before")
    @classmethod
    def _maps_of_the_family_by_default(cls, given: Any) -> Any:
        usual = {"unet": (), "regdeeplab": ("AG",), "vqamodal": ("occlusion",)}
        if isinstance(given, dict) and given.get("family") in usual:
            return {"maps": usual[given["family"]], **given}
        return given

    @model_validator(mode="after")
    def _only_a_ratio_has_weights_of_its_own(self) -> "SegmentSettings":
        if self.ratio_weights and self.family != "regdeeplab":
            raise ValueError(f"ratio_weights came with the family {self.family}, which tells no ratio; leave it empty")
        return self


class DataSettings(Settings):
    """Which annotated pictures to learn from, and which embryos to keep aside."""

    folders: tuple[str, ...] = Field((), description="Folders of annotated pictures.")
    layout: Layout = Field(
        "auto",
        description="How the annotations lie on disk: LabelMe or COCO JSON, KINS (amodal COCO), Saeedi et al. "
        "(GT_ICM/, GT_TE/, GT_ZP/), images/ with masks/, label pictures beside the images (NAME_masks, NAME_cp_masks), "
        "a CSV of grades, samples saved from napari, or nothing but a list of empty pictures (empty.txt). auto: look.",
    )
    without_annotations: Literal["skip", "empty"] = Field(
        "skip",
        description="What a picture means whose annotation holds nothing: skip it, or learn that it shows no embryo. "
        "Single pictures can be named in a file empty.txt in their folder.",
    )
    embryo_pattern: str = Field(
        "",
        description="Regular expression whose group 'embryo' is what stays on one side of the split; "
        "empty: the names of known clinics and incubators, else the file's name.",
    )
    embryo_table: str = Field("", description="CSV with the columns image and embryo; goes before the pattern.")
    validation: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the embryos kept aside to validate on; 0: learn from all, and know nothing of how well.",
    )
    test: float = Field(0.0, ge=0, lt=1, description="Share of the embryos kept aside untouched.")
    folds: int = Field(0, ge=0, le=50, description="Cross-validation with so many parts instead; 0 for none.")
    fold: int = Field(0, ge=0, le=49, description="Which part of the cross-validation to validate on.")
    seed: int = Field(0, ge=0, description="Of the split.")
    only_train: tuple[str, ...] = Field(
        (),
        description="Names of folders to learn from only, never to judge by, such as drawn pictures.",
    )
    only_validation: tuple[str, ...] = Field(
        (),
        description="Names of folders to judge by only, never to learn from, such as another clinic's.",
    )
    repeats: dict[str, int] = Field(
        default_factory=dict, description="How many times an epoch visits the pictures of a folder of this name."
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DataSettings":
        if not self.folds and self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; keep their sum below 1"
            )
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} came; needed are two folds or more, counted from 0")
        return self

    @model_validator(mode="after")
    def _a_folder_learns_or_judges(self) -> "DataSettings":
        if both := sorted(set(self.only_train) & set(self.only_validation)):
            raise ValueError(
                f"only_train and only_validation both name {', '.join(both)}; a folder can be for one of them alone"
            )
        return self


class Augmentation(Settings):
    """How samples are altered at random while the network learns; every number 0 (zoom 1) leaves them as they are."""

    flips: bool = Field(True, description="Mirror left-right and up-down, each half the time.")
    rotation: float = Field(180, ge=0, le=180, description="Largest turn in degrees, to either side.")
    zoom_out: float = Field(0.65, gt=0, le=1, description="Smallest scale.")
    zoom_in: float = Field(1.25, ge=1, le=4, description="Largest scale.")
    shift: float = Field(0.12, ge=0, le=0.5, description="Largest shift, as a share of the picture.")
    shear: float = Field(6, ge=0, le=45, description="Largest shear in degrees.")
    crop: float = Field(0.5, ge=0, le=1, description="How often a crop around the embryo is shown, not the picture.")
    photometric: float = Field(
        1.0, ge=0, le=2, description="Strength of gamma, contrast, brightness, uneven light, blur and noise."
    )
    invert: float = Field(0.1, ge=0, le=1, description="How often dark and bright are exchanged.")
    wells: float = Field(
        0.35, ge=0, le=1, description="How often a microscope's embryo is laid into a drawn incubator well."
    )
    hide: float = Field(
        0.0,
        ge=0,
        le=1,
        description="shapecode: how often a part of a cell is hidden, so that completing it is learned, too.",
    )


class TrainSettings(Settings):
    """One training run (ResA-Net's paper: Adam 1e-4, batch 16, 100 epochs; ours differs, see the model card)."""

    epochs: int = Field(30, ge=1, le=100_000, description="Passes over the training pictures.")
    batch_size: int = Field(8, ge=1, le=1024, description="Samples per step; halved when memory runs out.")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="adam: weight decay as L2, as in the papers.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Highest rate of the decoder.")
    encoder_rate: float = Field(0.2, ge=0, le=1, description="The encoder's share of the rate; 0 leaves it as it is.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay.")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field("one-cycle", description="Of the learning rate.")
    warm_up: float = Field(0.1, gt=0, lt=1, description="one-cycle: share of the steps in which the rate rises.")
    clip_norm: float = Field(5.0, ge=0, le=1000, description="Largest gradient norm; 0 for any.")
    regression_rate: float = Field(
        0.1, gt=0, le=1, description="The regression head's share of the rate: at 1e-3 it collapses to one answer."
    )
    parts: Literal["all", "decoder", "head", "regression"] = Field(
        "all",
        description="What learns; the rest stays as it is, to the bit. head: the last layer and the regression head, "
        "of vqamodal the mask head and the refinement; regression: that alone. A "
        "shapecode learns as a whole, the one within vqamodal never.",
    )
    frozen_batch_norm: bool = Field(False, description="Keep the statistics of batch normalization, for small batches.")
    loss_weights: dict[str, float] = Field(
        default_factory=dict, description="Weight of a loss by its name; 1 where nothing is said, 0 leaves it out."
    )
    patience: int = Field(0, ge=0, le=100_000, description="Stop after so many epochs without a better one; 0: never.")
    device: Device = Field("auto", description="auto takes the graphics card where there is one.")
    devices: int = Field(
        1, ge=1, le=64, description="How many cards of this kind share every batch; the step is that of one."
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 where it is computed natively, float16 on other NVIDIA cards; never float16 on a "
        "processor.",
    )
    workers: int = Field(0, ge=0, le=64, description="Processes that prepare samples; 0: a thread of this one.")
    seed: int = Field(0, ge=0, description="Of the order, the augmentation and the dropout.")


class Recipe(Settings):
    """A whole training run: as YAML it can be kept, sent to a colleague and run again."""

    name: str = Field(
        "finetuned",
        pattern=r"^[^\W_][\w.-]*$",
        description="Of the model; letters, digits, '.', '_', '-', a letter or digit first.",
    )
    model: ModelSettings = Field(default_factory=ResANetSettings, description="The network.")
    preprocessing: Preprocessing = Field(default_factory=Preprocessing, description="How pictures are prepared.")
    start: str = Field(
        "bundled",
        description="'bundled' weights, 'imagenet' for the encoder alone, 'random', or the path of a checkpoint. "
        "bundled and a checkpoint bring their own model and preprocessing.",
    )
    backbone: str = Field("", description="safetensors file of an ImageNet ResNet-50, for start: imagenet.")
    shape_code: str = Field(
        "",
        description="Weights of a trained shape code, for vqamodal: a model's name or path; empty: those of the start, "
        "else bundled vqamodal's.",
    )
    data: DataSettings = Field(default_factory=DataSettings, description="Pictures, and the split by embryo.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="What chance does to a picture.")
    training: TrainSettings = Field(default_factory=TrainSettings, description="How the network learns.")

    @field_validator("name")
    @classmethod
    def _name_means_no_other_start(cls, name: str) -> str:
        if name.casefold() in RESERVED_NAMES:
            raise ValueError(
                f"{name!r} came; {', '.join(RESERVED_NAMES)} are starts of a training, so no model of yours can be "
                "found by such a name; choose another one"
            )
        return name

    @model_validator(mode="after")
    def _only_vqamodal_has_a_shape_code(self) -> "Recipe":
        if self.shape_code and not (self.model.family == "vqamodal" and self.model.head == "vq"):
            raise ValueError(
                f"shape_code: {self.shape_code!r} came, but this network has none; leave it empty, or choose "
                "vqamodal with head: vq"
            )
        return self
