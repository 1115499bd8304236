"""From a weights file and its sidecar JSON to a Model, without running code that came with it."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from guard.arch import build
from guard.errors import UnusableInput, one_line
from guard.files import sha256
from guard.model import Model
from guard.preprocess import Preprocess
from guard.spec import ModelSpec, read_spec

CODE_FORMATS = {".pt2": "torch.export program", ".ts": "TorchScript", ".torchscript": "TorchScript"}
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep weights


def load_model(path: Path, *, trust_code: bool = False) -> Model:
    """Read MODEL in a format of torch (the contract's form). Raises UnusableInput with one line.

    Safetensors and weights-only state dicts are data. A format that runs code when opened is
    refused unless `trust_code`; a factory named by the sidecar is the user's own code.
    """
    if not path.is_file():
        raise UnusableInput(f"{path}: there is no such model file")
    spec = read_spec(path.with_suffix(".json"))
    kind = file_format(path)
    if kind in ("safetensors", "state_dict"):
        network, layer = build(spec, path)
        _fill(network, read_weights(path), path)
    elif kind == "onnx":
        raise UnusableInput(f"{path}: an ONNX file is opened by export.onnx_in.load_onnx")
    elif trust_code:
        network, layer = _open_with_code(path, kind), None
    else:
        raise UnusableInput(
            f"{path}: a {kind} runs code when it is opened; ask the supplier for safetensors or a "
            "state dict, or pass --trust-code if you trust its author as you trust your own code"
        )
    return examined(network, spec, layer, path)


def file_format(path: Path) -> str:
    """ "safetensors", "state_dict", "onnx", or the name of a format with code."""
    if path.suffix in (".safetensors", ".onnx"):
        return path.suffix[1:]
    if path.suffix in CODE_FORMATS:
        return CODE_FORMATS[path.suffix]
    if path.suffix not in (".pt", ".pth"):
        raise UnusableInput(
            f"{path}: expected .safetensors, .onnx, .pt or .pth, not {path.suffix!r}"
        )
    try:
        if _holds_torchscript(path):
            return "TorchScript"
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        if "GLOBAL" in str(error) or "Unsupported class" in str(error):  # it names code
            return "pickled module"
        raise UnusableInput(f"{path}: not a readable PyTorch file ({one_line(error)})") from None
    return "state_dict"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a weights-only state dict, on the CPU."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UnusableInput(f"{path}: not a readable safetensors file ({error})") from None
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UnusableInput(f"{path}: holds no state dict (names with tensors)")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _fill(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    # BatchNorm's step counter plays no part in what a model computes; old files lack it.
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    extra = [k for k in weights if k not in own]
    shapes = [k for k in own if k in weights and own[k].shape != weights[k].shape]
    for names, what in ((missing, "lacks"), (extra, "has no place for"), (shapes, "differs in")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UnusableInput(
                f"{path}: does not fit the arch of its JSON: it {what} "
                f"{', '.join(names[:3])}{more}; check arch, width and outputs"
            )
    try:
        network.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # sparse weights, and types that nothing computes in
        raise UnusableInput(f"{path}: {one_line(error)}") from None
    if not all(bool(torch.isfinite(v).all()) for v in network.state_dict().values()):
        raise UnusableInput(f"{path}: some weights are NaN or infinite")


def _open_with_code(path: Path, kind: str) -> nn.Module:
    try:
        if kind == "TorchScript":
            return torch.jit.load(path, map_location="cpu")
        if kind == "torch.export program":
            program = torch.export.load(path).module()
            program.eval = lambda: program  # type: ignore[method-assign]  # it has no modes
            return program
        opened = torch.load(path, map_location="cpu", weights_only=False)
    except (Exception, SystemExit) as error:
        raise UnusableInput(f"{path}: can't be opened as a {kind} ({one_line(error)})") from None
    if not isinstance(opened, nn.Module):
        raise UnusableInput(f"{path}: holds a {type(opened).__name__}, not a module")
    return opened


def examined(network: nn.Module, spec: ModelSpec, layer: str | None, path: Path) -> Model:
    """The frozen Model, after one pass has shown that it takes and gives what the JSON says."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    height, width = spec.input.size
    try:
        with torch.no_grad():
            y = network.eval()(Preprocess(spec.input)(torch.zeros(2, 3, height, width)))
        complaint = _complaint(y, len(spec.outputs))
        if not complaint:  # the search for the split needs outputs as they should be
            return Model(network, spec, layer)
    except Exception as error:
        complaint = f"the network fails on an image of {height} x {width} ({one_line(error)})"
    raise UnusableInput(f"{path}: {complaint}")


def _complaint(y: Any, outputs: int) -> str:
    """Why an answer on two images is not `outputs` values for each; empty where it is."""
    if not isinstance(y, Tensor):
        return f"gives a {type(y).__name__}, not one tensor [N x outputs]"
    if y.dim() != 2 or len(y) != 2:
        return f"gives a tensor {list(y.shape)} for two images, not [N x outputs]"
    if y.shape[1] != outputs:
        return f"gives {y.shape[1]} values an image, its JSON names {outputs} outputs"
    return ""


def _holds_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def model_facts(model: Model, path: Path) -> dict[str, Any]:
    """What the report states of a model file."""
    split, sidecar = model.split, path.with_suffix(".json")
    return {
        "path": str(path),
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "sidecar_sha256": sha256(sidecar) if sidecar.is_file() else None,
        "format": file_format(path),
        "arch": model.spec.arch,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "split": {"layer": split.layer, "features": split.features, "reason": split.reason},
    }
