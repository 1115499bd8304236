"""The search engine: its loop, and that a killed run goes on to the same end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.engine import Engine, Stage, gradients_to_input_only
from guard.errors import UnusableInput
from guard.files import digest, finite, whole_file, write_json
from guard.finding import Curves
from tests.conftest import plain

CPU = torch.device("cpu")
STEPS = 23


class Trigger(nn.Module):
    """Two searches side by side, with a weight that follows the course, as `Collapse` has."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.values = nn.Parameter(torch.randn(2, 5, generator=draw))
        self.register_buffer("weight", torch.ones(2))

    def objective(self, index: Tensor, at: float) -> dict[str, Tensor]:
        wanted = torch.sin(index.float())[:5]
        error = (self.values - wanted).square().mean(dim=1)
        total = self.weight.clone() * error * (1 + at)
        with torch.no_grad():
            self.weight.mul_(1.01 + 0.1 * error.detach())
        return {"total": total, "error": error, "target": self.values.detach().mean(dim=1)[:, None]}


def stages() -> list[Stage]:
    """Two stages in a row, as the methods have; the rates of the second one fall."""
    made = []
    for name, schedule in (("scan", lambda at: 1.0), ("refine", lambda at: 1 - at)):
        module = Trigger()
        groups = [{"params": [module.values], "lr": 0.1}]
        optimizer = torch.optim.Adam(groups)
        made.append(Stage(name, module, optimizer, module.objective, 50, STEPS, 6, schedule))
    return made


class Stop:
    """Ends the run at a step of the whole course, by Ctrl-C."""

    def __init__(self, stage: Stage, step: int) -> None:
        self.left, self.objective = step, stage.objective
        stage.objective = self

    def __call__(self, index: Tensor, at: float) -> dict[str, Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.objective(index, at)


def engine_of(state: Path | None, **changes: Any) -> Engine:
    values: dict[str, Any] = {"fingerprint": "a", "state": state, "save_every": 0.0, "log_every": 3}
    return Engine(CPU, seed=7, **{**values, **changes})


def run_all(engine: Engine, made: list[Stage]) -> list[Curves]:
    return [engine.run(stage) for stage in made]


def ends(made: list[Stage]) -> list[Tensor]:
    return [value.clone() for stage in made for value in stage.module.state_dict().values()]


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("step", [0, 1, 9, STEPS - 1])
def test_a_killed_run_resumes_to_the_same_end(tmp_path: Path, stage: int, step: int) -> None:
    whole = stages()
    curves = run_all(engine_of(None), whole)

    killed = stages()
    Stop(killed[stage], step)
    with pytest.raises(KeyboardInterrupt):
        run_all(engine_of(tmp_path / "state.pt"), killed)

    resumed, engine = stages(), engine_of(tmp_path / "state.pt")
    engine.resume()
    again = run_all(engine, resumed)
    assert again == curves
    assert all(torch.equal(a, b) for a, b in zip(ends(resumed), ends(whole), strict=True))


def test_a_run_killed_twice_resumes_to_the_same_end(tmp_path: Path) -> None:
    whole = stages()
    curves = run_all(engine_of(None), whole)
    for step in (4, 7):
        killed, engine = stages(), engine_of(tmp_path / "state.pt")
        engine.resume()
        Stop(killed[0], step)
        with pytest.raises(KeyboardInterrupt):
            run_all(engine, killed)
    resumed, engine = stages(), engine_of(tmp_path / "state.pt")
    engine.resume()
    assert run_all(engine, resumed) == curves
    assert all(torch.equal(a, b) for a, b in zip(ends(resumed), ends(whole), strict=True))


def test_a_resumed_run_does_only_the_steps_that_are_left(tmp_path: Path) -> None:
    killed = stages()
    Stop(killed[0], 15)
    with pytest.raises(KeyboardInterrupt):
        run_all(engine_of(tmp_path / "state.pt"), killed)
    resumed, engine = stages(), engine_of(tmp_path / "state.pt")
    engine.resume()
    counter = Stop(resumed[0], 1000)
    engine.run(resumed[0])
    assert 1000 - counter.left == STEPS - 15


def test_a_restart_has_other_draws_and_states_of_its_own(tmp_path: Path) -> None:
    engine, reruns = engine_of(tmp_path / "state.pt"), stages()
    first, again = run_all(engine, stages()), run_all(engine.again(), reruns)
    assert first != again
    resumed = engine_of(tmp_path / "state.pt")
    resumed.resume()
    assert run_all(resumed.again(), stages()) == again
    assert run_all(resumed, stages()) == first


def test_the_same_seed_gives_the_same_course_and_another_does_not() -> None:
    first, again, other = stages(), stages(), stages()
    assert run_all(engine_of(None), first) == run_all(engine_of(None), again)
    seeded = Engine(CPU, seed=8, log_every=3)
    assert run_all(seeded, other) != run_all(engine_of(None), stages())


def test_curves_hold_first_and_last_step_and_a_value_for_each_search() -> None:
    curves = engine_of(None).run(stages()[0])
    assert curves.steps == [*range(0, STEPS, 3), STEPS - 1]
    assert set(curves.terms) == {"total", "error"}
    assert all(len(rows) == len(curves.steps) for rows in curves.terms.values())
    assert len(curves.terms["error"][0]) == 2
    one = curves.of_search(1)
    assert one.terms["error"] == [row[1] for row in curves.terms["error"]]
    both = one.then(one)
    assert both.steps == sorted(set(both.steps))
    assert len(both.targets) == 2 * len(one.targets)


def test_no_folder_no_file(tmp_path: Path) -> None:
    engine = engine_of(tmp_path / "absent" / "state.pt")
    engine.resume()  # nothing to go on from: starts anew
    engine.run(stages()[0])
    assert [p.name for p in (tmp_path / "absent").iterdir()] == ["state.pt"]


def finished_state(path: Path) -> None:
    run_all(engine_of(path), stages())


def test_a_state_of_another_fingerprint_is_refused(tmp_path: Path) -> None:
    finished_state(tmp_path / "state.pt")
    with pytest.raises(UnusableInput, match="--overwrite") as caught:
        engine_of(tmp_path / "state.pt", fingerprint="b").resume()
    assert "state.pt" in str(caught.value)


def junk(path: Path) -> None:
    path.write_bytes(b"junk")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    finished_state(path)
    path.write_bytes(path.read_bytes()[:-300])


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def other_keys(path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, path)


@pytest.mark.parametrize("write", [junk, empty, cut, a_list, other_keys])
def test_an_unreadable_state_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "state.pt"
    write(path)
    with pytest.raises(UnusableInput, match="--overwrite") as caught:
        engine_of(path).resume()
    assert "\n" not in str(caught.value)
    assert "state.pt" in str(caught.value)


def test_weights_are_frozen_only_for_a_while() -> None:
    network = plain(2)
    network[0].weight.requires_grad_(False)
    wanted = [p.requires_grad for p in network.parameters()]
    with gradients_to_input_only(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == wanted
    with pytest.raises(KeyboardInterrupt), gradients_to_input_only(network):
        raise KeyboardInterrupt
    assert [p.requires_grad for p in network.parameters()] == wanted


# --- files ---------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_is_strict(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"a": [value, (1.5, {"b": value})]})
    assert "null" in (tmp_path / "a.json").read_text()
    assert finite({"a": [value, (1.5, {2: value})]}) == {"a": [None, [1.5, {"2": None}]]}


def test_a_digest_knows_where_its_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", b"c") == digest(b"ab", "c")
