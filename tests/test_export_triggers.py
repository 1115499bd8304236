"""Export of triggers: what their files compute and say of themselves."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.metadata import read_metadata, trigger_metadata
from export.write import export_trigger
from guard.dynamic import ImageTrigger
from guard.generator import Generator
from guard.paper import MomentumTrigger
from guard.probing import ProbeSettings, stripes
from guard.settings import PaperSettings
from guard.triggers import SharedTriggers
from tests.conftest import stirred
from tests.export_files import answers, model, run


@pytest.mark.parametrize(
    "triggers",
    [stirred(1, (20, 16), seed=4), stripes((20, 16), ProbeSettings(waves=1))],
    ids=["coarser than the image", "finer than it"],
)
def test_a_shared_trigger_as_a_file(triggers: SharedTriggers, tmp_path: Path) -> None:
    trigger = triggers.select(0).eval()
    export_trigger(trigger, tmp_path / "g.onnx", size=(20, 16), facts={"score": 3.0})
    x = torch.rand(3, 3, 20, 16)
    np.testing.assert_allclose(run(tmp_path / "g.onnx", x.numpy()), answers(trigger, x), atol=1e-5)
    stated = read_metadata(onnx.load(tmp_path / "g.onnx"))
    assert (stated["kind"], stated["score"]) == ("trigger", 3.0)
    assert stated["input"]["size"] == [20, 16]


def test_of_the_paper_s_trigger_g_is_written_and_the_file_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator((2, 2, 4))
    trigger = MomentumTrigger(generator, model(), PaperSettings()).eval()
    export_trigger(trigger, tmp_path / "g.onnx", size=(16, 16))
    x = torch.rand(3, 3, 16, 16)
    expected = answers(generator, x)
    np.testing.assert_allclose(run(tmp_path / "g.onnx", x.numpy()), expected, atol=1e-5)
    stated = read_metadata(onnx.load(tmp_path / "g.onnx"))
    assert "T needs gradients" in stated["computes"]


def test_without_momentum_g_is_the_whole_trigger() -> None:
    trigger = MomentumTrigger(Generator((2, 2, 4)), model(), PaperSettings(momentum=False))
    assert trigger_metadata(trigger, (16, 16), {})["computes"] == "G(x)"
    stated = trigger_metadata(ImageTrigger(), (16, 16), {})
    assert stated["computes"] == "x' = x + (p(x) - x) m(x)"
