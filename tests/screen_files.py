"""Settings of screenings for tests: over at once, or just enough for a verdict on a tiny model."""

from guard.screen import Settings
from guard.settings import CalibratedSettings, PaperSettings
from tests.conftest import short_search

SHORT = Settings(
    calibrated=short_search(2),
    paper=PaperSettings(pretrain_steps=1, steps=1, batch=4),
)
# A linear model only answers one vector once hardly anything is left to see: large steps.
ENOUGH = CalibratedSettings(scan_steps=200, refine_steps=200, learning_rate=0.3)
