"""The search engine that all methods share: optimise a trigger model, stage by stage.

A method gives stages; the engine runs the step loop, keeps the curves, and stores a state from
which a killed run goes on to the same end.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guard.errors import UnusableInput
from guard.files import whole_file
from guard.finding import Curves

RESTART = 7919  # added to the seed; a prime, so that seeds given by hand rarely meet it


class Progress(Protocol):
    """Shows how far a stage is; tools/ gives a bar, the default shows nothing."""

    def start(self, stage: str, steps: int, done: int) -> None: ...

    def update(self, done: int, terms: dict[str, float]) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """No progress display."""

    def start(self, stage: str, steps: int, done: int) -> None:
        pass

    def update(self, done: int, terms: dict[str, float]) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass
class Stage:
    """One optimisation: what is trained, by which objective, for how long."""

    name: str
    module: nn.Module  # the trigger model; its buffers (adaptive weights) belong to the state
    optimizer: torch.optim.Optimizer
    # (indices of images [batch], progress 0..1) -> terms by name, each a number or one for each
    # search run together. The sum of "total" is minimised; "target" is the mean output, [d].
    objective: Callable[[Tensor, float], dict[str, Tensor]]
    images: int  # N: indices are drawn from 0..N-1
    steps: int
    batch: int  # images a step
    schedule: Callable[[float], float] = lambda progress: 1.0  # factor of the learning rate


def settle(progress: float) -> float:
    """The learning rate's factor: whole for one half of a stage, then down to zero."""
    return min(1.0, 2 * (1 - progress))


@dataclass
class Engine:
    """Runs stages on one device, resumable from `state`."""

    device: torch.device
    seed: int
    fingerprint: str = ""  # of model, data and settings: a state made with others is refused
    state: Path | None = None  # where the state is kept; None keeps none
    progress: Progress = field(default_factory=Silent)
    log_every: int = 10  # steps; reading a term waits for the device
    save_every: float = 10.0  # seconds
    course: str = ""  # "again " in a restart, whose stages have a state of their own
    _saved: dict[str, Any] = field(default_factory=dict)

    def resume(self) -> None:
        """Read the state of an interrupted run. Raises UnusableInput where it does not fit."""
        if self.state is None or not self.state.exists():
            return
        try:
            saved = torch.load(self.state, map_location=self.device, weights_only=True)
            fingerprint, stages = saved["fingerprint"], saved["stages"]
        except Exception:
            raise UnusableInput(
                f"{self.state}: not a readable state; start anew with --overwrite"
            ) from None
        if fingerprint != self.fingerprint:
            raise UnusableInput(
                f"{self.state}: made with another model, other data or other settings; "
                "start anew with --overwrite"
            )
        self._saved = stages

    def again(self) -> "Engine":
        """The same for a restart: other draws, the same file of states."""
        return replace(self, seed=self.seed + RESTART, course="again ")

    def run(self, stage: Stage) -> Curves:
        """Optimise a stage to its end, from where a resumed state left it."""
        saved = self._saved.get(self.course + stage.name)
        done, curves = self._restore(stage, saved) if saved else (0, Curves())
        draw = torch.Generator().manual_seed(self.seed)
        if saved:
            draw.set_state(saved["draw"].cpu())
        if done < stage.steps:
            self._loop(stage, done, curves, draw)
        return curves

    def _loop(self, stage: Stage, done: int, curves: Curves, draw: torch.Generator) -> None:
        rates = [group["lr"] for group in stage.optimizer.param_groups]
        if done:
            rates = [group["initial_lr"] for group in stage.optimizer.param_groups]
        last_saved = time.monotonic()
        self.progress.start(self.course + stage.name, stage.steps, done)
        for step in range(done, stage.steps):
            index = torch.randint(stage.images, (stage.batch,), generator=draw)
            at = step / stage.steps
            for group, rate in zip(stage.optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
                group["lr"] = rate * stage.schedule(at)
            terms = self._step(stage, index.to(self.device, non_blocking=True), at)
            if step % self.log_every == 0 or step + 1 == stage.steps:
                self._log(step, terms, curves)
            if time.monotonic() - last_saved > self.save_every:
                self._save(stage, step + 1, curves, draw)
                last_saved = time.monotonic()
        self.progress.stop()
        self._save(stage, stage.steps, curves, draw)

    def _step(self, stage: Stage, index: Tensor, at: float) -> dict[str, Tensor]:
        stage.optimizer.zero_grad(set_to_none=True)
        terms = stage.objective(index, at)
        terms["total"].sum().backward()
        stage.optimizer.step()
        return terms

    def _log(self, step: int, terms: dict[str, Tensor], curves: Curves) -> None:
        values = {name: term.detach().float() for name, term in terms.items()}
        target = values.pop("target", None)
        curves.steps.append(step)
        for name, value in values.items():
            curves.terms.setdefault(name, []).append(value.tolist())
        if target is not None:
            curves.targets.append(target.tolist())
        self.progress.update(step + 1, {name: float(v.mean()) for name, v in values.items()})

    def _restore(self, stage: Stage, saved: dict[str, Any]) -> tuple[int, Curves]:
        stage.module.load_state_dict(saved["module"])
        stage.optimizer.load_state_dict(saved["optimizer"])
        return int(saved["done"]), Curves(**saved["curves"])

    def _save(self, stage: Stage, done: int, curves: Curves, draw: torch.Generator) -> None:
        if self.state is None:
            return
        self._saved[self.course + stage.name] = {
            "done": done,
            "module": stage.module.state_dict(),
            "optimizer": stage.optimizer.state_dict(),
            "curves": vars(curves),
            "draw": draw.get_state(),
        }
        with whole_file(self.state) as temporary:
            torch.save({"fingerprint": self.fingerprint, "stages": self._saved}, temporary)


@contextmanager
def gradients_to_input_only(model: nn.Module) -> Iterator[None]:
    """Freeze a model's weights: a search needs gradients to the images alone."""
    wanted = [p.requires_grad for p in model.parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, need in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(need)
