"""ONNX operators that look through a window: convolution, pooling, padding and resizing.

All are for pictures, [N x C x H x W]. Each function reads a node's attributes and gives what
computes it; the ONNX operator reference states their meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf

import torch
from torch import Tensor
from torch.nn import functional

from export.graph_node import Node

Pair = tuple[int, int]  # for height and width
Sides = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Window:
    """How a window moves over a picture."""

    strides: Pair
    dilations: Pair
    pads: Sides
    auto_pad: str

    def around(self, x: Tensor, kernel: Pair) -> Sides:
        """The pixels to put around x; auto_pad depends on the size of x."""
        if not self.auto_pad.startswith("SAME"):
            return self.pads
        less, more = [], []
        for size, side, step in zip(x.shape[2:], kernel, self.strides, strict=True):
            total = max((ceil(size / step) - 1) * step + side - size, 0)
            less.append(total // 2)
            more.append(total - total // 2)
        first, last = (less, more) if self.auto_pad == "SAME_UPPER" else (more, less)
        return first[0], first[1], last[0], last[1]


def conv(node: Node) -> Callable[..., Tensor]:
    """Convolution."""
    window, group = _kernel(node)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        top, left, bottom, right = window.around(x, (w.shape[2], w.shape[3]))
        if (top, left) != (bottom, right):
            x, top, left = _surround(x, (top, left, bottom, right)), 0, 0
        return functional.conv2d(x, w, b, window.strides, (top, left), window.dilations, group)

    return run


def conv_transpose(node: Node) -> Callable[..., Tensor]:
    """The transpose of a convolution: `pads` are cut off what it gives."""
    window, group = _kernel(node)
    more = tuple(node.take("output_padding", (0, 0)))
    if window.auto_pad.startswith("SAME"):
        raise node.refusal(f"auto_pad={window.auto_pad}")
    top, left, bottom, right = window.pads

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        strides, dilations = window.strides, window.dilations
        whole = functional.conv_transpose2d(x, w, b, strides, 0, more, group, dilations)
        return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]

    return run


def max_pool(node: Node) -> Callable[..., Tensor]:
    """Without the second output, the places of the maxima."""
    kernel, window = _pair(node, "kernel_shape", None), _window(node)
    up = _ceil_mode(node, window, kernel)
    node.only("storage_order", 0, 1)  # only matters to the second output

    def run(x: Tensor) -> Tensor:
        sides = window.around(x, kernel)
        pads = sides[:2]
        if not _poolable(sides, kernel):
            x, pads = _surround(x, sides, -inf), (0, 0)
        return functional.max_pool2d(x, kernel, window.strides, pads, window.dilations, up)

    return run


def average_pool(node: Node) -> Callable[..., Tensor]:
    """The mean over a window, with or without the pixels that were put around."""
    kernel, window = _pair(node, "kernel_shape", None), _window(node)
    up = _ceil_mode(node, window, kernel)
    with_pads = bool(node.only("count_include_pad", 0, 1))
    if window.dilations != (1, 1):
        raise node.refusal(f"dilations={window.dilations}")

    def run(x: Tensor) -> Tensor:
        sides = window.around(x, kernel)
        if _poolable(sides, kernel):
            return functional.avg_pool2d(x, kernel, window.strides, sides[:2], up, with_pads)
        mean = functional.avg_pool2d(_surround(x, sides), kernel, window.strides)
        if with_pads:
            return mean
        inside = _surround(torch.ones_like(x[:1, :1]), sides)
        return mean / functional.avg_pool2d(inside, kernel, window.strides)

    return run


def _kernel(node: Node) -> tuple[Window, int]:
    """How a kernel moves, and its groups. Its weight states its size; onnxruntime checks that."""
    weight = node.constant(1)
    if weight is not None and weight.dim() != 4:
        raise node.refusal(
            f"a weight of {weight.dim()} dimensions, {weight.dim() - 2} of a window,"
        )
    node.take("kernel_shape")
    return _window(node), node.take("group", 1)


def _window(node: Node) -> Window:
    auto = node.only("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads = tuple(node.take("pads", (0, 0, 0, 0)))
    if len(pads) != 4:
        raise node.refusal(f"a window of {len(pads) // 2} dimensions (pads={pads})")
    if min(pads) < 0:
        raise node.refusal(f"pads={pads}")
    if auto != "NOTSET":
        pads = (0, 0, 0, 0)
    strides, dilations = _pair(node, "strides", (1, 1)), _pair(node, "dilations", (1, 1))
    if auto.startswith("SAME") and dilations != (1, 1):  # onnxruntime can't either
        raise node.refusal(f"auto_pad={auto} with dilations")
    return Window(strides, dilations, (pads[0], pads[1], pads[2], pads[3]), auto)


def _pair(node: Node, name: str, default: Pair | None) -> Pair:
    values = node.take(name, default)
    if values is not None and len(values) != 2:
        raise node.refusal(f"a window of {len(values)} dimensions ({name}={values})")
    if values is None or min(values) < 1:
        raise node.refusal(f"{name}={values}")
    return values[0], values[1]


def _poolable(sides: Sides, kernel: Pair) -> bool:
    """Whether torch's pooling itself can put these pixels around."""
    return sides[:2] == sides[2:] and 2 * sides[0] <= kernel[0] and 2 * sides[1] <= kernel[1]


def _surround(x: Tensor, sides: Sides, value: float = 0.0) -> Tensor:
    top, left, bottom, right = sides
    return functional.pad(x, (left, right, top, bottom), value=value)


def _ceil_mode(node: Node, window: Window, kernel: Pair) -> bool:
    """Windows that begin in the padding are dropped: torch knows that of its own padding only."""
    up = bool(node.only("ceil_mode", 0, 1))
    if up and (window.auto_pad.startswith("SAME") or not _poolable(window.pads, kernel)):
        raise node.refusal("ceil_mode with such padding")
    return up


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(node: Node) -> Callable[..., Tensor]:
    """Pixels around a picture; a negative number of them cuts off."""
    mode = PAD_MODES[node.only("mode", *PAD_MODES)]

    def run(
        x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None
    ) -> Tensor:
        named = range(x.dim()) if axes is None else [int(a) % x.dim() for a in axes.tolist()]
        sides = [(0, 0)] * x.dim()
        for place, axis in enumerate(named):
            sides[axis] = (int(pads[place]), int(pads[place + len(named)]))
        while mode != "constant" and len(sides) > 2 and sides[0] == (0, 0):
            sides = sides[1:]  # torch mirrors only where all trailing dimensions are named
        flat = [side for pair in reversed(sides) for side in pair]
        if mode == "constant":
            return functional.pad(x, flat, value=0.0 if value is None else float(value))
        return functional.pad(x, flat, mode=mode)

    return run


# (mode, coordinate_transformation_mode, nearest_mode) -> mode and align_corners of interpolate
RESIZE_MODES: dict[tuple[str, str, str], tuple[str, bool | None]] = {
    ("nearest", "asymmetric", "floor"): ("nearest", None),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
    ("linear", "half_pixel", ""): ("bilinear", False),
    ("linear", "pytorch_half_pixel", ""): ("bilinear", False),
    ("linear", "align_corners", ""): ("bilinear", True),
    ("cubic", "half_pixel", ""): ("bicubic", False),
    ("cubic", "pytorch_half_pixel", ""): ("bicubic", False),
    ("cubic", "align_corners", ""): ("bicubic", True),
}


def resize(node: Node) -> Callable[..., Tensor]:
    """Resizing of height and width in those modes that torch computes in the same way."""
    mode, corners = _resize_mode(node)
    axes = node.take("axes", None)
    if axes is not None and list(axes) not in ([0, 1, 2, 3], [2, 3]):
        raise node.refusal(f"axes={axes}")
    known = node.constant(2)
    if known is not None and any(factor != 1 for factor in known.tolist()[:-2]):
        raise node.refusal(f"scales={known.tolist()}")

    def run(
        x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None = None
    ) -> Tensor:
        if sizes is not None and sizes.numel():
            size = [int(side) for side in sizes.tolist()[-2:]]
            return functional.interpolate(x, size=size, mode=mode, align_corners=corners)
        assert scales is not None
        factors = tuple(scales.tolist()[-2:])
        return functional.interpolate(x, scale_factor=factors, mode=mode, align_corners=corners)

    return run


def _resize_mode(node: Node) -> tuple[str, bool | None]:
    mode = node.take("mode", "nearest")
    coordinates = node.take("coordinate_transformation_mode", "half_pixel")
    nearest = node.take("nearest_mode", "round_prefer_floor")
    cubic = round(node.take("cubic_coeff_a", -0.75), 6)
    for name, default in (
        ("antialias", 0),
        ("exclude_outside", 0),
        ("keep_aspect_ratio_policy", "stretch"),
    ):
        node.only(name, default)
    node.take("extrapolation_value", 0.0)  # only for tf_crop_and_resize
    key = (mode, coordinates, nearest if mode == "nearest" else "")
    if key not in RESIZE_MODES or (mode == "cubic" and cubic != -0.75):
        raise node.refusal(f"mode {' '.join(filter(None, key))}")
    return RESIZE_MODES[key]
