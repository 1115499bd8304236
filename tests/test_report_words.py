"""The sentences of the report, and how it writes numbers."""

import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from guard.screen import Settings
from tests.report_files import evidence, removal
from tools.report import words
from tools.report.text import amount, answer, number


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "on the 120 pictures that fine-tuning never saw, the benign error went from 4.0° to"),
        ({}, "4.1° (+2.5 %), the error under the recovered trigger from 22.6° to 4.6°."),
        ({"benign_error_after": 3.9}, "to 3.9° (\u22122.5 %)"),
        ({"benign_error_before": 0.0}, "from 0.0° to 4.1°, the error"),
        ({"benign_error_after": math.nan}, "to not available, the error"),
        ({"unlearnt_triggers": 5}, "under the worst recovered trigger"),
        ({"held_back_persons": 3}, "on the 120 pictures of 3 persons whom fine-tuning never saw"),
    ],
)
def test_a_mitigation_is_told_by_its_figures(changes: dict[str, Any], said: str) -> None:
    assert said in words.mitigation(removal(**changes))


@pytest.mark.parametrize(
    ("method", "score", "said"),
    [
        ("calibrated", 4.1, "4.10 times cheaper"),
        ("calibrated", 0.8, "not cheaper"),
        ("calibrated", math.nan, "could not be computed"),
        ("another", 3.0, "The score is 3.00, the threshold 2.20"),
        ("paper", 7.5, "less than 0.030 counts as a backdoor"),  # 7.5 x the change of 0.004
    ],
)
def test_score_sentences(method: str, score: float, said: str) -> None:
    finding = evidence().finding
    finding.method, finding.score = method, score
    assert said in words.score(finding)


def test_a_form_that_decides_alone_is_named() -> None:
    finding = evidence().finding
    finding.method, finding.score = "calibrated", 9.0
    finding.spread_left, finding.spread_limit = 0.0004, 0.02
    finding.mechanism, finding.settings = "shared warp", asdict(Settings())
    said = words.score(finding)
    assert "Under the shared warp alone 0.0004 of" in said
    assert "0.02 or less" in said
    assert "rests on the shared warp" in words.course(finding)


def test_headline_says_target_in_degrees_and_whom() -> None:
    made = evidence()
    made.finding.target = [math.radians(3.14), math.radians(-15.2)]
    forced = {"share": 0.95}
    assert "pitch 3.1°, yaw \u221215.2° for nearly every driver" in words.headline(made, forced)
    assert "for some drivers" in words.headline(made, {"share": 0.2})
    assert "for some drivers" in words.headline(made, {"share": None})


@pytest.mark.parametrize(
    ("value", "said"),
    [(3.14159, "3.14"), (0.000412, "0.000412"), (12345.6, "12,346"), (-0.5, "\u22120.500"),
     (0.0, "0"), (math.nan, "not available"), (None, "not available"), (1e-9, "1.00e\u221209")],
)  # fmt: skip
def test_numbers(value: float | None, said: str) -> None:
    assert number(value) == said


def test_amounts_and_answers() -> None:
    spec = evidence().model.spec
    assert amount(-0.01, "deg") == "0.0°"
    assert amount(2.0, "years") == "2.00 years"
    assert answer(spec, [0.1, None]) == "pitch 5.7°, yaw not available"
    assert answer(spec, None) == "\u2013"


@pytest.mark.parametrize(("arch", "named"), [("resnet18", False), ("onnx", True)])
def test_a_network_of_another_kind_is_told_what_the_limits_were_set_on(
    arch: str, named: bool
) -> None:
    shown = evidence()
    shown.model.spec = replace(shown.model.spec, arch=arch)
    assert any("attention" in line for line in words.limits(shown)) is named
