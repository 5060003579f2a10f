"""The network: pictures in, joint coordinates in the volume out."""

from jaxtyping import Float
from torch import Tensor, nn

from poselib.model.backbone import ResNet
from poselib.model.decoder import Decoder
from poselib.model.integral import soft_argmax
from poselib.model.pyramid import PyramidPooling
from poselib.settings import ModelSettings
from poselib.skeleton import H36M_JOINTS


class PoseNetwork(nn.Module):
    """ResNet, pyramid pooling, transposed convolutions, soft-argmax.

    Args:
        settings: all that the network is made of.

    Attributes:
        settings: the same, for those who save it beside the weights.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = ResNet(settings.backbone, settings.width)
        channels = self.backbone.out_channels
        self.pyramid: PyramidPooling | None = None
        if settings.ppm_bins:
            self.pyramid = PyramidPooling(channels, settings.ppm_bins, settings.ppm_channels or channels)
            channels = self.pyramid.out_channels
        joints = len(H36M_JOINTS)
        self.decoder = Decoder(channels, settings.decoder_channels, settings.decoder_layers, joints, settings.depth)

    def heatmap_logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b jd h2 w2"]:
        """Scores of every cell before the softmax: `b (j d) h w`, in the type that autocast leaves them in."""
        features = self.backbone(images)
        if self.pyramid is not None:
            features = self.pyramid(features)
        return self.decoder(features)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b j 3"]:
        """Normalised pictures `b 3 h w` to u, v, z of every joint, in volume units, at least float32.

        A joint inside the crop and the depth range has all three in [-0.5, 0.5]. `poselib.volume` turns them into
        millimetres.
        """
        settings = self.settings
        return soft_argmax(self.heatmap_logits(images), settings.depth, settings.cell_origin, settings.soft_argmax)
