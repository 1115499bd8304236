"""The plans of the zoo, and the tiny one as models in a folder."""

import math
from pathlib import Path

import pytest

from tools.zoo import train
from tools.zoo.train import train_zoo

PLANS = Path(train.__file__).parent / "plans"
HEAD = "name,task,data,attack,settings,recipe"


def train_tiny(out: Path) -> None:
    """The tiny plan, trained for three steps: nothing is learnt, which is let pass here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.zoo.judge.LEARNT", math.inf)
        train_zoo(PLANS / "tiny.csv", out, device="cpu", steps=3)
