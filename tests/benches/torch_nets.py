"""The paper's nets in torch, and as ONNX files: `python -m benches.torch_nets NAME FLOAT.onnx INT8.onnx` in tests/.

The int8 file is ONNX Runtime's static quantization in the form that was its fastest here (BUILD_NOTES.md, "Speed"):
uint8 activations, int8 weights with a scale a channel.
"""

import sys
import warnings

import torch
import torch_resnet

SIDE = 224
CALIBRATION_IMAGES = 10  # of noise: the ranges do not change how long a call takes


def build(name):
    """The net with probabilities, its strides where the paper and keras.applications have them: in the first 1x1."""
    net = torch_resnet.build(name)
    for block in net.modules():
        if isinstance(block, torch_resnet.Block) and block.steps == 3:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return torch.nn.Sequential(net, torch.nn.Softmax(1)).eval()


def write_onnx(name, float_file, int8_file):
    """Writes both files."""
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    noise = torch.randn(CALIBRATION_IMAGES, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter, which it recommends, needs onnxscript
        torch.onnx.export(build(name), (noise[:1],), float_file, dynamo=False, input_names=["image"])
    shape_inference.quant_pre_process(float_file, int8_file)

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"image": image[None].numpy()} for image in noise])

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_static(
        int8_file, int8_file, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True, **types
    )


if __name__ == "__main__":
    write_onnx(*sys.argv[1:])
    print("{}")
