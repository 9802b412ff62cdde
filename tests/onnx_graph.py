"""A network as ONNX, run by onnxruntime."""

import numpy as np
import onnxruntime
import torch


def onnx_logits(program: torch.export.ExportedProgram, x: torch.Tensor) -> np.ndarray:
    """What the exported program gives for `x` (B, C, H, W) as ONNX."""
    onnx = torch.onnx.export(program, (), dynamo=True, verbose=False, optimize=False)
    session = onnxruntime.InferenceSession(
        onnx.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return found
