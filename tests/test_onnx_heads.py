"""ONNX files of published kinds of gaze and head-pose models are the models they came from."""

from pathlib import Path

import pytest
import torch

from export.onnx_in import load_onnx
from export.precision import export_files
from tests.conftest import spec_of
from tests.onnx_files import agrees_with_its_source, by_new_exporter, by_old_exporter, write
from tests.onnx_heads import HEADS, NEWER

SPLIT = {"bins": None}  # the others end in one dense layer
OPSETS = [(kind, opset) for kind in HEADS for opset in (17, None)]
OLDER = [("direction", 13), ("widened", 13)]


@pytest.mark.parametrize(("kind", "opset"), [*OPSETS, *OLDER])
def test_a_published_kind_of_model_is_read_and_exported_again(
    kind: str, opset: int | None, tmp_path: Path
) -> None:
    """`opset`: the old exporter's, None: by the new one."""
    torch.manual_seed(0)
    network = HEADS[kind]().eval()
    if opset is None:
        proto = by_new_exporter(network)
    else:
        proto = by_old_exporter(network, tmp_path / "a.onnx", opset)
    task = "headpose" if kind == "rotation" else "gaze"
    model = load_onnx(write(proto, tmp_path, spec_of(task, arch="onnx")))
    agrees_with_its_source(model, network)
    assert model.split.layer == SPLIT.get(kind, "head")
    again = export_files(model, tmp_path / "again.onnx")
    agrees_with_its_source(load_onnx(again[0]), network)


@pytest.mark.parametrize(("kind", "opset"), NEWER)
def test_what_the_exporter_writes_in_newer_opsets_is_read(
    kind: str, opset: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = NEWER[kind, opset]().eval()
    model = load_onnx(write(by_new_exporter(network, opset), tmp_path))
    agrees_with_its_source(model, network)
    # What was read is exported again in what can be read.
    again = export_files(model, tmp_path / "again.onnx", opset=opset)
    agrees_with_its_source(load_onnx(again[0]), network)
