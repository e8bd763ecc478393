"""The perceptual loss of SPADE: differences between features of a VGG-19 whose weights the user has."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from anatogen.errors import SettingsError
from anatogen.io.tensors import read_tensors

# VGG-19 (Simonyan and Zisserman 2015): channels of the convolutions, "M" for a max pooling.
_LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)
# Features after the first convolution of each stage, with the weights of Wang et al. 2018 (pix2pixHD).
_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
_HINT = "torchvision's vgg19 weights (vgg19-dcbb9e9d.pth), or the same as .safetensors, have the keys features.N.weight"


class PerceptualLoss(nn.Module):
    """The weighted L1 distance between features of images in [-1, 1], (B, C, H, W) -> (B,).

    Args:
        weights: A file of VGG-19 weights, .pth or .safetensors.

    Raises:
        SettingsError: The file is missing or holds something else.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for layer in _LAYERS:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU()]
                channels = layer
        self.features = nn.Sequential(*layers)
        wanted = self.state_dict()
        try:
            found = (
                read_tensors(weights)
                if weights.suffix == ".safetensors"
                else torch.load(weights, map_location="cpu", weights_only=True)
            )
            self.load_state_dict({name: found[name] for name in wanted})
        except FileNotFoundError as error:
            raise SettingsError("does not exist", path=weights, hint=_HINT) from error
        except Exception as error:  # whatever a file of another kind raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SettingsError(f"holds no weights of VGG-19 ({reason})", path=weights, hint=_HINT) from error
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image. Images of other than three channels are shown as the mean of theirs, in gray."""
        found, wanted = self._features(images), self._features(targets.detach())
        total = torch.zeros(len(images), device=images.device)
        for weight, ours, theirs in zip(_WEIGHTS, found, wanted, strict=True):
            total = total + weight * (ours - theirs.detach()).abs().flatten(1).mean(1)
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        if images.shape[1] != 3:
            images = images.mean(1, keepdim=True).expand(-1, 3, *images.shape[2:])
        h, found, first = ((images + 1) / 2 - self.mean) / self.std, [], True
        for layer in self.features:
            h = functional.relu(h) if isinstance(layer, nn.ReLU) else layer(h)
            if isinstance(layer, nn.ReLU) and first:
                found.append(h)
                first = False
            if isinstance(layer, nn.MaxPool2d):
                first = True
        return found
