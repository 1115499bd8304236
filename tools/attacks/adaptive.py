"""The adaptive attack (paper, section 4.5): any attack with equation 6 in its training loss.

It is a setting of every attack (`lambda_adp`), so "adaptive WaNet" is WaNet with that weight.
The paper's weight of 0.02 stands beside errors of labels in radians (standard deviation about
0.2); beside errors in standard deviations, as here, the same balance is about 0.1.
"""

import torch
from torch import Tensor

from guard.terms import B


def L_adp(h: Tensor, w: Tensor, poisoned: Tensor) -> Tensor:
    """Equation 6: |1 - (1/d) sum_j var{B(F(A(x_i)), w_j)} / var{B(F(x_i), w_j)}| on a minibatch.

    h [B x m] are the features of the whole batch, w [d x m] the weights of H, `poisoned` (B,) says
    which images bear the trigger.
    """
    angles = B(h, w)
    ratio = _variance(angles, poisoned) / _variance(angles, ~poisoned).clamp_min(1e-8)
    return (1 - ratio.mean()).abs()


def _variance(values: Tensor, chosen: Tensor) -> Tensor:
    """Variance of the chosen rows (B,) of values [B x d]; by weights, so that no GPU waits."""
    share = chosen.to(values.dtype)[:, None]
    share = share / share.sum().clamp_min(1.0)
    mean = (share * values).sum(dim=0)
    return torch.sum(share * (values - mean).square(), dim=0)
