"""The values that an ONNX file holds, as torch tensors."""

import numpy as np
import onnx
import torch
from torch import Tensor

from guard.errors import UnusableInput

FLOATS = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
}
WHOLE = {
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def to_torch(tensor: onnx.TensorProto, where: str) -> Tensor:
    """The values of a tensor; halves as float32. Raises UnusableInput."""
    if tensor.data_type not in (*FLOATS, *WHOLE):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise UnusableInput(f"{where}: values of type {kind} are not supported")
    try:
        values = torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
    except ValueError as error:  # onnx.checker lets pass what is longer than its shape
        raise UnusableInput(f"{where}: its values do not fit its shape ({error})") from None
    return values.float() if values.dtype == torch.float16 else values
