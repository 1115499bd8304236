"""onnxruntime sessions that run where they say: the provider is asserted, TF32 is off."""

import contextlib
from collections.abc import Mapping

import onnxruntime
import torch

from export.graph_file import OnnxFile
from export.graph_node import shown
from guard.errors import UnusableInput

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
OPTIONS = {CPU: {}, CUDA: {"use_tf32": "0"}}  # TF32 moved answers of others by a third


class NotRunning(Exception):
    """A provider that was asked for does not run here; one line."""


def open_sessions(file: OnnxFile) -> tuple[dict[str, onnxruntime.InferenceSession], list[str]]:
    """A session on each provider that really runs here, and a line on each that fails to.

    CUDA is asked for only where torch has a GPU: onnxruntime would fall back to the CPU in
    silence. Raises UnusableInput where even the CPU can't run the file.
    """
    sessions, missing = {CPU: open_on_cpu(file)}, []
    if torch.cuda.is_available():
        try:
            sessions[CUDA] = _open(file, CUDA)
        except Exception as error:
            missing.append(f"{CUDA}: {shown(str(error))}")
    return sessions, missing


def uses_tf32(options: Mapping[str, Mapping[str, str]]) -> bool:
    """By what each provider states of itself; CUDA uses it where it is not told otherwise."""
    return CUDA in options and options[CUDA].get("use_tf32", "1") != "0"


def open_on_cpu(file: OnnxFile) -> onnxruntime.InferenceSession:
    """Raises UnusableInput where onnxruntime can't open the file."""
    try:
        return _open(file, CPU)
    except Exception as error:  # onnxruntime's exceptions have no common base
        line = shown(str(error))
        raise UnusableInput(f"{file.path}: onnxruntime can't open it ({line})") from None


def _open(file: OnnxFile, provider: str) -> onnxruntime.InferenceSession:
    if provider == CUDA:
        with contextlib.suppress(Exception):  # else those of the system are found, or none
            onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    # Else a DequantizeLinear and MatMul fuse into one that rounds the picture's values to int8 too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(
        file.content, options, providers=[(provider, OPTIONS[provider])]
    )
    if session.get_providers()[0] != provider:
        raise NotRunning(f"onnxruntime fell back to {session.get_providers()[0]}")
    return session
