"""From 8-bit images to what an ONNX file takes."""

import numpy as np
import torch
from torch import Tensor

from guard.preprocess import Preprocess
from guard.spec import InputSpec


@torch.no_grad()
def feed(images: Tensor, spec: InputSpec, embedded: bool) -> np.ndarray:
    """RGB images [N x 3 x H x W] uint8 as the array that a file takes.

    float32 [N x 3 x H x W], preprocessed as `spec` says; for a file that preprocesses by itself
    (`embedded`) uint8 [N x H x W x 3].
    """
    images = images.cpu()
    if embedded:
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    x: Tensor = Preprocess(spec)(images.to(torch.float32) / 255.0)
    return np.ascontiguousarray(x.numpy())
