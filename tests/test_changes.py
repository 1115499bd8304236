"""`--change`: settings changed for an ablation; `--only`: which models are taken."""

from pathlib import Path

import pytest

from guard.errors import UnusableInput
from guard.lesson import MitigationSettings
from guard.screen import Settings
from tools.zoo.changes import changed
from tools.zoo.choice import left


def test_nothing_changes_without_a_change() -> None:
    assert changed(Settings(), "") == Settings()


def test_settings_at_any_depth_can_be_changed() -> None:
    found = changed(Settings(), "calibrated.probes.kept=0; paper.momentum=False;paper.lambda1=5")
    assert found.calibrated.probes.kept == 0
    assert found.paper.momentum is False
    assert found.paper.lambda1 == 5
    assert found.calibrated.collapse == Settings().calibrated.collapse


def test_the_settings_of_a_mitigation_can_be_changed_too() -> None:
    found = changed(MitigationSettings(), "pursuit.every=0;forget=0.5")
    assert (found.pursuit.every, found.forget) == (0, 0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("calibrated.probe.kept=0", "'probe' is no setting"),
        ("calibrated.probes.kept.more=0", "'more' is no setting"),
        ("calibrated.probes.kept=few", "'few' is no value"),
        ("calibrated.probes.kept=0.5", "'0.5' is no value"),
        ("calibrated.probes=3", "'3' is no value"),
        ("paper.momentum=1", "'1' is no value"),
        ("calibrated.threshold", "'' is no value"),
    ],
)
def test_what_is_no_setting_or_no_value_is_said(text: str, complaint: str) -> None:
    with pytest.raises(UnusableInput, match=complaint):
        changed(Settings(), text)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, ["genki-sig-00", "sig-00"]),
        ("sig-00", ["sig-00"]),
        ("sig*,genki*", ["genki-sig-00", "sig-00"]),
        ("*sig*", ["genki-sig-00", "sig-00"]),
        ("done-00", []),
    ],
)
def test_models_are_taken_by_whole_names(only: str | None, expected: list[str]) -> None:
    folders = [Path("zoo") / name for name in ("done-00", "genki-sig-00", "sig-00")]
    assert [folder.name for folder in left(folders, ["done-00"], only)] == expected
