"""The ResNet-50 encoder shared by the families."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet, resnet50

ENCODER_CHANNELS = (64, 256, 512, 1024, 2048)


class Encoder(nn.Module):
    """ResNet-50 encoder for gray images: features at strides 2, 4, 8, 16, 32 (each size halved, rounded up).

    Parameters
    ----------
    variant
        Position of the strides: ``v1.5`` as torchvision's weights expect, ``v1`` as in the network of He et al.
    output_stride
        Stride of the deepest features; below 32 the last stages keep the size and are dilated, as in torchvision.
    """

    def __init__(self, variant: str = "v1.5", output_stride: int = 32) -> None:
        super().__init__()
        dilated = [False, output_stride < 16, output_stride < 32]
        trunk = resnet50(weights=None, replace_stride_with_dilation=dilated)
        del trunk.fc
        if variant == "v1":
            _stride_in_first_convolution(trunk)
        self.trunk = trunk

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        t = self.trunk
        c1 = t.relu(t.bn1(t.conv1(images.expand(-1, 3, -1, -1))))
        c2 = t.layer1(t.maxpool(c1))
        c3 = t.layer2(c2)
        c4 = t.layer3(c3)
        return c1, c2, c3, c4, t.layer4(c4)

    def load(self, path: Path) -> None:
        """Load ImageNet weights from a safetensors state dict of torchvision's ``resnet50`` without ``fc``."""
        state = {k: v.float() for k, v in load_file(path).items() if not k.startswith("fc.")}
        try:
            missing, unexpected = self.trunk.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: not a ResNet-50 state dict; torchvision's resnet50 is needed ({error})"
            ) from error
        lacking = [k for k in missing if not k.endswith("num_batches_tracked")]
        if lacking or unexpected:
            raise ValueError(
                f"{path}: not a ResNet-50 state dict ({len(lacking)} tensors missing, {len(unexpected)} unknown, "
                f"such as {(lacking + unexpected)[0]!r}); torchvision's resnet50 without fc is needed"
            )


def _stride_in_first_convolution(trunk: ResNet) -> None:
    """Move the stride to the first 1 x 1 convolution of a stage, as in He et al.

    The 3 x 3 convolution after it then works on the grid of its stage, so it is dilated like the others of the stage.
    """
    for stage in (trunk.layer2, trunk.layer3, trunk.layer4):
        first, usual = stage[0], stage[1].conv2
        first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
        first.conv2.dilation = first.conv2.padding = usual.dilation
