"""The network: pictures in, joint coordinates in the volume out."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from poselib.model.backbone import ResNet
from poselib.model.decoder import Decoder, Regressor
from poselib.model.integral import highest_place, projected_soft_argmax
from poselib.model.pyramid import PyramidPooling
from poselib.settings import ModelSettings
from poselib.skeleton import H36M_JOINTS

Output = Literal["joints", "expectation", "logits"]
"""What a forward pass gives: joints as `inference` reads them, the heat maps' expectation, or their scores."""


class PoseNetwork(nn.Module):
    """Backbone, pyramid pooling, transposed convolutions, soft-argmax; or a linear layer in place of the latter two.

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
        if settings.ppm_bins is not None:
            self.pyramid = PyramidPooling(channels, settings.ppm_bins, settings.ppm_channels or channels)
            channels = self.pyramid.out_channels
        joints = len(H36M_JOINTS)
        self.decoder: Decoder | None = None
        self.regressor: Regressor | None = None
        if settings.head == "regression":
            self.regressor = Regressor(channels, joints)
        else:
            shape = (settings.decoder_channels, settings.decoder_layers, joints, settings.depth)
            self.decoder = Decoder(channels, *shape, temperature=settings.temperature)

    def forward(
        self, images: Float[Tensor, "b 3 h w"], output: Output = "joints"
    ) -> Float[Tensor, "b j 3"] | Float[Tensor, "b jd h2 w2"]:
        """Normalised pictures `b 3 h w` to u, v, z of every joint `b j 3`, in volume units, at least float32.

        A joint inside the crop and the depth range has all three in [-0.5, 0.5]. `poselib.volume` turns them into
        millimetres.

        Args:
            images: the pictures.
            output: `joints` for use; `expectation` and `logits` for losses, see `heatmap_logits`.
        """
        if output == "logits":
            return self.heatmap_logits(images)
        settings, features = self.settings, self.features(images)
        if self.decoder is None:
            assert self.regressor is not None
            return self.regressor(features)
        if output == "joints" and settings.inference == "mode":
            return highest_place(self.decoder(features), settings.depth, settings.cell_origin)
        upsampled = self.decoder.upsampling(features)
        weight, bias = self.decoder.projection()
        return projected_soft_argmax(
            upsampled, weight, bias, settings.depth, settings.cell_origin, settings.soft_argmax
        )

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h32 w32"]:
        """What backbone and pyramid see."""
        features = self.backbone(images)
        return features if self.pyramid is None else self.pyramid(features)

    def heatmap_logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b jd h2 w2"]:
        """Scores of every cell, divided by the temperature: `b (j d) h w`, in the type that autocast leaves them in.

        Raises:
            ValueError: the head has no heat maps.
        """
        if self.decoder is None:
            raise ValueError("head must be integral or probabilistic to have heat maps, not regression")
        return self.decoder(self.features(images))
