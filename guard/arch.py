"""What `arch` names: a built-in network, or a factory of the user's own."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from guard.errors import UnusableInput, one_line
from guard.networks import NETWORKS
from guard.spec import ONNX, ModelSpec


def build(spec: ModelSpec, path: Path) -> tuple[nn.Module, str | None]:
    """The network that `arch` names, with random weights, and the dense layer a factory names."""
    if spec.arch == ONNX:
        raise UnusableInput(
            f"{path}: holds the weights of an ONNX graph but not the graph; open the .onnx file"
        )
    if ":" not in spec.arch:
        if spec.arch not in NETWORKS:
            known = ", ".join(NETWORKS)
            raise UnusableInput(
                f'{path.with_suffix(".json")}: arch "{spec.arch}" is none of {known}, '
                "nor of the form package.module:function"
            )
        try:
            return NETWORKS[spec.arch](len(spec.outputs), spec.width), None
        except RuntimeError as error:  # of a width for which no machine has the memory
            raise UnusableInput(f"{path.with_suffix('.json')}: {one_line(error)}") from None
    where = f"{path.with_suffix('.json')}: arch {spec.arch}"
    try:
        made = _call_factory(_factory(spec.arch), spec)
    except (Exception, SystemExit) as error:  # the user's own code may do anything
        raise UnusableInput(f"{where}: {one_line(error)}") from None
    network, layer = made if isinstance(made, tuple) else (made, None)
    if not isinstance(network, nn.Module):
        raise UnusableInput(f"{where}: the factory gave a {type(network).__name__}, no module")
    return network, layer


def _factory(arch: str) -> Callable[..., Any]:
    module_name, _, function = arch.partition(":")
    # A sidecar comes from outside: it may name the user's code, never os:system and its like.
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise UnusableInput("the standard library holds no model factories")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnusableInput(f"the factory can't be imported ({error})") from None
    if not callable(found):
        raise UnusableInput("is not a function")
    return found


def _call_factory(factory: Callable[..., Any], spec: ModelSpec) -> Any:
    """Call with those of `outputs`, `width` and `spec` that the factory has parameters for."""
    offered = {"outputs": len(spec.outputs), "width": spec.width, "spec": spec}
    wanted = inspect.signature(factory).parameters
    return factory(**{name: value for name, value in offered.items() if name in wanted})
