"""The paper's equations 3 to 5, each term one function. All take the rows of a set of images."""

import torch
from torch import Tensor
from torch.nn import functional

COSINE_LIMIT = 1.0 - 1e-6  # arccos has no slope at 1; float32 knows 1 - 6e-8 and no closer


def variance(values: Tensor) -> Tensor:
    """sigma^2 over the images, for each column. [N x k] -> [k]."""
    return values.var(dim=0, unbiased=False)


def B(h: Tensor, w: Tensor) -> Tensor:
    """Equation 4: the angles in radians between features h [N x m] and weights w [d x m]. [N x d].

    A feature vector of length 0 has no direction: it counts as orthogonal and gives no gradient.
    """
    lengths = h.norm(dim=1, keepdim=True)
    direction = torch.where(lengths > 0, h / lengths.clamp_min(1e-12), torch.zeros_like(h))
    cosines = direction @ functional.normalize(w, dim=1).T
    return torch.arccos(cosines.clamp(-COSINE_LIMIT, COSINE_LIMIT))


def output_variance(y: Tensor) -> Tensor:
    """Equation 5, first term without lambda1: (1/d) sum_j sigma^2{f_j(x'_i)}. y is [N x d]."""
    return variance(y).mean()


def input_change(x_triggered: Tensor, x: Tensor) -> Tensor:
    """Equation 5, second term: (1/N) sum_i |x'_i - x_i|_1, as a mean over pixels and channels.

    The paper does not say whether |.|_1 is a sum. With the sum, collapsing all angles gains at
    most lambda2 = 800 while epsilon |x^|_1 at 224 x 224 is above 2,000, so every model would
    pass for backdoored; with the mean the terms order as the paper's ablations do.
    """
    return (x_triggered - x).abs().mean()


def r_f(angles: Tensor, benign_angle_variance: Tensor) -> Tensor:
    """Equation 5, third term without lambda2: (1/d) sum_j of the ratio of angle variances.

    `angles` [N x d] of the triggered images, `benign_angle_variance` [d]. With the angles of
    truly triggered images this is RAV (equation 3).
    """
    return (variance(angles) / benign_angle_variance).mean()


def rnv(h_triggered: Tensor, h: Tensor) -> Tensor:
    """Equation 3: the ratio of the variances of the features' lengths. h are [N x m]."""
    return variance(h_triggered.norm(dim=1)[:, None]) / variance(h.norm(dim=1)[:, None])


def relative_change(x_triggered: Tensor, x: Tensor, largest: float) -> Tensor:
    """Mean |x'_i - x_i| over `largest`, the largest mean |x| of a benign image (section 3.4)."""
    return input_change(x_triggered, x) / largest
