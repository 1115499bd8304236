"""The settings of the paper's method, the paper's symbol beside each of its constants."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperSettings:
    """`--method=paper`: equations 5 and 7 with the paper's weights (section 4.1, A.10)."""

    lambda1: float | None = None  # lambda1; None: 20 for gaze, 10 otherwise
    lambda2: float | None = None  # lambda2; None: 800 for gaze, 100 otherwise
    epsilon: float = 0.03  # epsilon of the identification rule
    batch: int | None = None  # None: 50 for gaze, 100 otherwise
    learning_rate: float | None = None  # None: 0.0015 for gaze, 0.0001 otherwise
    pretrain_steps: int = 5000
    steps: int = 2000
    attention: str = "each"  # |df/dx| for vector f: "each" output's, added up, or of their "sum"
    attention_above: float = 1.001  # T is divided by this times its maximum, so T < 1
    feature_term: bool = True  # r_f; without it the ablation of table 8
    momentum: bool = True  # the momentum reverse trigger; without it the ablation of table 8
