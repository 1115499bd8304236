"""Plans of the zoo: what they hold, and what is refused."""

from pathlib import Path

import pytest

from guard.errors import UnusableInput
from tests.zoo_files import HEAD, PLANS
from tools.zoo import train
from tools.zoo.plan import read_plan
from tools.zoo.train import stages, train_zoo, twins


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.csv")), ids=lambda path: path.stem)
def test_plans_can_be_made(plan: Path) -> None:
    rows = read_plan(plan)
    for row in rows:
        train.check_settings(row)
        assert row.benign or twins(row, rows), f"{row.name} has no benign twin"
    assert sum(len(stage) for stage in stages(rows)) == len(rows)


@pytest.mark.parametrize(
    ("plan", "least"), [("development", (10, 2, 8, 1)), ("heldout", (20, 3, 8, 1))]
)
def test_plans_hold_what_the_figures_need(plan: str, least: tuple[int, int, int, int]) -> None:
    found: dict[tuple[str, bool], dict[str, int]] = {("rendered", True): {}, ("genki", True): {}}
    for row in read_plan(PLANS / f"{plan}.csv"):
        label = (row.label or row.attack).split()[0]
        group = found.setdefault((row.data, row.benign), {})
        if row.arch == "resnet18" and (row.task == "gaze" or row.data == "genki"):
            group[label] = group.get(label, 0) + 1
    assert found["rendered", True]["benign"] >= least[0]
    assert min(found["rendered", False].values()) >= least[1]
    assert found["genki", True]["benign"] >= least[2]
    assert min(found["genki", False].values()) >= least[3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD}\na,gaze,rendered,nonsense,,plain\n", "nonsense"),
        (f"{HEAD}\na,smell,rendered,benign,,plain\n", "smell"),
        (f"{HEAD}\na,gaze,rendered,benign,,secret\n", "secret"),
        (f"{HEAD}\n,gaze,rendered,benign,,plain\n", "name"),
        (f"{HEAD},colour\na,gaze,rendered,benign,,plain,red\n", "colour"),
        (f"{HEAD},count\na,gaze,rendered,benign,,plain,two\n", "two"),
        (f"{HEAD}\na,gaze,rendered,benign,,plain\na,gaze,rendered,benign,,plain\n", "twice"),
        (f"{HEAD},size\na,gaze,rendered,benign,,plain,32\n", "from 48 to 224 pixels, got 32"),
        (f"{HEAD},cabin\na,gaze,rendered,benign,,plain,boat\n", "unknown cabin 'boat'"),
        (f"{HEAD}\n", "no rows"),
        (f"{HEAD}\na,gaze,rendered,badnets,hue=1,plain\n", "hue"),
        (f"{HEAD},start\na,gaze,rendered,benign,,plain,b-00\n", "start 'b-00'"),
        (f"{HEAD},start\na,gaze,rendered,benign,,plain,a-00\n", "start 'a-00'"),
    ],
)
def test_unusable_plan_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(UnusableInput, match=says) as caught:
        train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"none\.csv"):
        read_plan(tmp_path / "none.csv")
