"""Every net that timm and torchvision have, with random weights: into ours and back. Not part of the tests.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    KERAS_BACKEND=torch python tests/peers.py

Prints, a net a line, the largest difference of logits as a share of their scale, and that of the peer's own logits
after it loaded, strictly, what `export_weights` wrote. Keras runs on torch, because TensorFlow and torchvision cannot
share a process. tests/torch_resnet.py is what the tests compare with instead, since these packages are large.
"""

import os
import tempfile

import keras
import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

import keras_resnet

NAMES = {
    "ResNet18": "resnet18",
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "ResNeXt50_32x4d": "resnext50_32x4d",
    "ResNeXt101_32x8d": "resnext101_32x8d",
    "ResNeXt101_64x4d": "resnext101_64x4d",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
    "ResNet50D": "resnet50d",
    "ResNet101D": "resnet101d",
    "SEResNet50": "seresnet50",
    "ResNet26": "resnet26",
    "ResNet200": "resnet200",
}


@torch.no_grad()
def randomized(net):
    """The net in evaluation mode with statistics that make every branch count."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1)
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@torch.no_grad()
def main():
    """Compares every net of NAMES."""
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2))
    with tempfile.TemporaryDirectory() as folder:
        state, back = os.path.join(folder, "state.safetensors"), os.path.join(folder, "back.safetensors")
        for name, theirs in NAMES.items():
            nets = {"timm": timm.create_model(theirs, pretrained=False)}
            if hasattr(torchvision.models, theirs):
                nets["torchvision"] = getattr(torchvision.models, theirs)()
            for library, net in nets.items():
                save_file(randomized(net).state_dict(), state)
                expected = net(inputs).numpy()
                model = keras_resnet.build(name, weights=state, classifier_activation=None)
                ours = keras.ops.convert_to_numpy(model(images, training=False))
                keras_resnet.export_weights(model, back)
                net.load_state_dict(load_file(back), strict=True)
                difference = np.abs(ours - expected).max() / np.abs(expected).max()
                returned = np.abs(net(inputs).numpy() - expected).max()
                print(f"{name:<17} {library:<12} {difference:.1e} {returned:.1e}", flush=True)


if __name__ == "__main__":
    main()
