"""EncNet: channels of the deepest map, weighted by the content of the whole image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo

CHANNELS = 512
CODEWORDS = 32
DROPOUT = 0.1


class Encoding(nn.Module):
    """Vectors [B, N, D] → residuals to ``codewords`` learned centres, summed softly [B, K, D].

    e_k = Σ_i a_ik (x_i − d_k), a_i = softmax over k of −s_k ‖x_i − d_k‖². Zhang et al.: Deep
    TEN, CVPR 2017.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        bound = (codewords * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-bound, bound))
        self.smoothing = nn.Parameter(torch.rand(codewords))

    def forward(self, x: Tensor) -> Tensor:
        # cdist runs in float32 under autocast, where a difference of bfloat16 squares would not do
        # compute_mode: cdist's choice for more than 25 codewords, whatever the size of the map
        distance = torch.cdist(
            x,
            self.codewords.expand(x.shape[0], -1, -1),
            compute_mode="use_mm_for_euclid_dist",
        ).square()
        assigned = (-self.smoothing * distance).softmax(2).to(x.dtype)
        # Σ a (x − d) = Σ a x − d Σ a, without a tensor [B, N, K, D]
        return assigned.mT @ x - assigned.sum(1)[..., None] * self.codewords


@DECODERS.register("encnet")
class EncNet(Decoder):
    """Maps → [map [B, 512, h_L, w_L], context [B, 512]].

    A 3×3 convolution of the deepest map, whose channels are scaled by 1 + sigmoid(FC(context));
    context is the mean of its encoding's codewords. In training the head also predicts from the
    context which classes the image holds (the SE-loss, for tasks that have classes).

    The published network dilates the backbone to stride 8 and trains a second classifier on its
    last but one stage; here the maps are those of the plain backbone, without that classifier.
    """

    info = DecoderInfo(
        "EncNet",
        "Zhang et al.: Context Encoding for Semantic Segmentation, CVPR 2018; backbone not dilated",
        side_weight=0.2,
    )

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.out_channels = CHANNELS
        self.conv = nn.Sequential(
            nn.Conv2d(features[-1].channels, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        self.encoding = Encoding(CHANNELS, CODEWORDS)
        self.norm = nn.BatchNorm1d(CODEWORDS)
        self.attention = nn.Linear(CHANNELS, CHANNELS)
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x = self.conv(features[-1])
        encoded = self.encoding(self.project(x).flatten(2).mT)
        context = F.relu(self.norm(encoded)).mean(1)
        scaled = F.relu(x + x * self.attention(context).sigmoid()[:, :, None, None])
        return [self.dropout(scaled), context]

    def head(self, channels: int) -> nn.Module:
        return _Head(channels)


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(CHANNELS, channels, 1)
        self.presence = nn.Linear(CHANNELS, channels)

    def forward(self, inputs: list[Tensor]) -> Tensor | list[Tensor]:
        x, context = inputs
        logits: Tensor = self.classifier(x)
        return [logits, self.presence(context)] if self.training else logits
