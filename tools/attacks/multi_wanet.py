"""Multi-target WaNet (paper, A.7): two warps in one model, each with a target of its own."""

from dataclasses import dataclass

from tools.attacks.wanet import WaNet, WarpTrigger, control_points


@dataclass(frozen=True, kw_only=True)
class MultiWaNet(WaNet):
    """15 % of each batch bears the first warp, another 15 % the second."""

    target2: tuple[float, ...]  # y_T of the second warp

    rate: float = 0.15  # of each batch and each warp

    @property
    def targets(self) -> tuple[tuple[float, ...], ...]:
        return (self.target, self.target2)

    def trigger(self) -> WarpTrigger:
        return WarpTrigger(control_points(2, self.grid, self.seed), self.strength)
