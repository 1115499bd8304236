"""The values that an ONNX file holds, as torch tensors."""

import numpy as np
import onnx
import torch
from torch import Tensor

from guard.errors import UnusableInput

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
WHOLE = {
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def to_torch(tensor: onnx.TensorProto, where: str) -> Tensor:
    """The values of a tensor; those of all float types as float32."""
    if tensor.data_type not in (*FLOATS, *WHOLE):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise UnusableInput(f"{where}: values of type {kind} are not supported")
    values = torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
    return values.float() if values.is_floating_point() else values
