"""ONNX files as MODEL: what they take, and who does the preprocessing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.candidate import open_candidate
from export.metadata import PIXELS
from export.onnx_in import load_onnx
from export.subject import model_subject
from guard.load import model_facts
from tests.conftest import SIDE, images_of, spec_of
from tests.onnx_files import (
    FLOAT,
    UINT8,
    X,
    answers,
    by_hand,
    by_onnxruntime,
    node,
    refusal,
    small,
    write,
)


def embedded(color: str = "rgb") -> onnx.ModelProto:
    """uint8 NHWC in; the picture is cast, turned and scaled in the graph."""
    proto = small()
    before = [
        node("Cast", "input", "p1", to=FLOAT),
        node("Transpose", "p1", "p2", perm=[0, 3, 1, 2]),
        node("Slice", "p2 start end axis step", "p3"),
        node("Div", "p3 full", "x"),
    ]
    proto.graph.node[0].input[0] = "x"
    nodes = [*before, *proto.graph.node]
    weights = {made.name: numpy_helper.to_array(made) for made in proto.graph.initializer}
    turned = color == "bgr"
    for name, value in (
        ("start", -1 if turned else 0),
        ("end", -(2**62) if turned else 2**62),
        ("axis", 1),
        ("step", -1 if turned else 1),
    ):
        weights[name] = np.array([value])
    weights["full"] = np.array(255, np.float32)
    return by_hand(nodes, weights, takes=("n", SIDE, SIDE, 3), kinds=(UINT8, FLOAT))


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_preprocessing_in_the_graph_leaves_none_to_the_model(color: str, tmp_path: Path) -> None:
    """Mean and std of the metadata tell what happens inside; so does color, beside `takes`."""
    inside = {"embedded": True, "color": color, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    inside["takes"] = PIXELS
    model = load_onnx(write(embedded(color), tmp_path, input=inside))
    pixels = images_of(5)
    assert torch.equal(model.preprocess(X), X)
    expected = by_onnxruntime(embedded(color), pixels.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(answers(model), expected, rtol=1e-4, atol=1e-5)
    plain = by_onnxruntime(small(), (X if color == "rgb" else X.flip(1)).numpy())
    np.testing.assert_allclose(answers(model), plain, rtol=1e-4, atol=1e-5)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert float(slope.abs().sum()) > 0


def test_a_file_that_says_so_takes_bgr_pixels(tmp_path: Path) -> None:
    path = write(embedded(), tmp_path, input={"embedded": True, "color": "bgr"})
    model, pixels = load_onnx(path), images_of(5).flip(1).permute(0, 2, 3, 1)
    assert model.spec.input.color == "bgr"
    expected = by_onnxruntime(embedded(), np.ascontiguousarray(pixels.numpy()))
    np.testing.assert_allclose(answers(model), expected, rtol=1e-4, atol=1e-5)
    fed = open_candidate(path, model_subject(model)).feed(images_of(5))
    assert np.array_equal(fed, pixels.numpy())


def test_a_color_that_there_is_not_is_refused(tmp_path: Path) -> None:
    takes = {"embedded": True, "takes": {"color": "grey"}}
    path = write(embedded(), tmp_path, input=takes)
    assert "grey" in refusal(path)


@pytest.mark.parametrize(("proto", "said"), [(embedded, False), (small, True)])
def test_the_metadata_and_the_graph_agree_on_who_preprocesses(
    proto: Callable[[], onnx.ModelProto], said: bool, tmp_path: Path
) -> None:
    assert "embedded" in refusal(write(proto(), tmp_path, input={"embedded": said}))


def test_preprocessing_of_the_spec_is_done_before_the_graph(tmp_path: Path) -> None:
    values = {"color": "bgr", "range": [0, 255], "mean": [1.0, 2.0, 3.0], "std": [50.0, 60.0, 70.0]}
    model = load_onnx(write(small(), tmp_path, input=values))
    mean, std = (np.array(values[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    fed = ((255 * X.numpy()[:, ::-1] - mean) / std).astype(np.float32)
    np.testing.assert_allclose(answers(model), by_onnxruntime(small(), fed), rtol=1e-3, atol=1e-4)


def test_the_spec_may_lie_beside_the_file_but_that_inside_wins(tmp_path: Path) -> None:
    path = write(small(), tmp_path, inside=False)
    assert load_onnx(path).spec.task == "gaze"
    assert model_facts(load_onnx(path), path)["sidecar_sha256"] is not None
    regression = spec_of("regression", outputs=("a", "b"))
    write(small(), tmp_path, regression)
    model = load_onnx(path)
    assert (model.spec.task, model.spec.arch) == ("regression", "onnx")


def test_height_and_width_may_be_symbolic(tmp_path: Path) -> None:
    proto = small(takes=("n", 3, "h", "w"))
    assert load_onnx(write(proto, tmp_path)).split.layer == "fc"
    assert "24" in refusal(write(proto, tmp_path, input={"size": [24, 24]}))
