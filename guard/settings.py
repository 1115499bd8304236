"""The settings of the two methods, the paper's symbol beside each of its constants."""

from dataclasses import dataclass, field

from guard.collapse import CollapseSettings
from guard.dynamic import DynamicSettings
from guard.probing import ProbeSettings


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
    pretrained: str = ""  # a folder that keeps G as pre-trained for other models' same images


@dataclass(frozen=True)
class CalibratedSettings:
    """One setting for every data set, image size, task and architecture."""

    # Many steps of few images: at the same cost, 300 x 5 shows a dip of a factor 5 where 90 x 16
    # shows none, because the change shrinks by steps and not by images.
    scan_steps: int = 300
    scan_batch: int = 5  # images a step, for each target
    refine_steps: int = 300
    refine_batch: int = 6
    # How far from its target a search may end, whitened: begun half a spread beside its dip, a
    # search with a fixed target sees nothing of a warp.
    scan_reach: float = 0.5
    refine_reach: float = 0.7
    candidates: int = 13  # searches that go on; all but the best of them are its controls
    controls: bool = True  # without, the score is the factor below the landscape (an ablation)
    crowd: int = 5  # of them that may start as close together as `apart`
    learning_rate: float = 0.1  # of the pattern
    warp_rate: float = 0.03  # of the displacement nodes
    threshold: float = 1.6  # n times cheaper than the other searches, place by place
    dip: float = 2.8  # n times below the landscape, for a search as the scan leaves it
    scatter: float = 5.0  # standard deviations of what the others say that a score must reach too
    drawn: float = 0.25  # of the others' distance left: from here down scatter does not count
    doubt: float = 1.1  # a score so little below its threshold is searched for once more
    confirm: float = 1.25  # and one so little above it
    apart: float = 1.5  # whitened units between two targets of one model; nearer ones are one dip
    collapsed: float = 0.15  # held-out mean squared distance to their place that still counts
    collapse: CollapseSettings = field(default_factory=CollapseSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    dynamic: DynamicSettings = field(default_factory=DynamicSettings)
