"""A progress bar with the objective's terms; quiet where there is no terminal."""

import sys

from tqdm import tqdm

from guard.engine import Progress, Silent


class Bar:
    """One bar a stage on stderr: steps, time left, and the terms of the objective."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def start(self, stage: str, steps: int, done: int) -> None:
        """Open the bar of a stage that is `done` steps on its way."""
        self._bar = tqdm(total=steps, initial=done, desc=stage, unit="step", leave=False)

    def update(self, done: int, terms: dict[str, float]) -> None:
        """Move to `done` steps and show the terms."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in terms.items()}, False)
            self._bar.update(done - self._bar.n)

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress(quiet: bool) -> Progress:
    """A bar where stderr is a terminal and nobody asked for quiet."""
    return Silent() if quiet or not sys.stderr.isatty() else Bar()
