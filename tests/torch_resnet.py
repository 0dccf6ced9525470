"""A plain torch ResNet with torchvision's names, and random weights that hide nothing: the reference for importers.

Run as a script it writes a net's state dict and its scores: torch and TensorFlow stay in processes of their own.

    python tests/torch_resnet.py ResNet50 STATE.safetensors SCORES.npy [BACK.safetensors]

With a fourth argument it loads that file strictly and prints by how much the scores differ.
"""

import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

# Name: bottleneck?, depths, groups, width of the 3x3 in multiples of the stage's.
NETS = {
    "ResNet18": (False, (2, 2, 2, 2), 1, 1),
    "ResNet34": (False, (3, 4, 6, 3), 1, 1),
    "ResNet50": (True, (3, 4, 6, 3), 1, 1),
    "ResNet101": (True, (3, 4, 23, 3), 1, 1),
    "ResNet152": (True, (3, 8, 36, 3), 1, 1),
    "ResNeXt50_32x4d": (True, (3, 4, 6, 3), 32, 2),
    "WideResNet50_2": (True, (3, 4, 6, 3), 1, 2),
}
INPUT_SHAPE = (2, 64, 64, 3)


class Block(nn.Module):
    """Basic or bottleneck block, the stride in the 3x3."""

    def __init__(self, channels, width, strides, groups, inner):
        super().__init__()
        bottleneck, expanded = inner > 0, width * (4 if inner else 1)
        if bottleneck:
            kernels = ((channels, width * inner, 1, 1, 1), (width * inner, width * inner, 3, strides, groups))
            kernels += ((width * inner, expanded, 1, 1, 1),)
        else:
            kernels = ((channels, width, 3, strides, 1), (width, width, 3, 1, 1))
        self.steps = len(kernels)
        for index, (given, made, size, stride, group) in enumerate(kernels, start=1):
            conv = nn.Conv2d(given, made, size, stride, size // 2, groups=group, bias=False)
            setattr(self, f"conv{index}", conv)
            setattr(self, f"bn{index}", nn.BatchNorm2d(made))
        self.downsample = None
        if strides > 1 or channels != expanded:
            projection = nn.Conv2d(channels, expanded, 1, strides, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(expanded))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for index in range(1, self.steps + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            x = torch.relu(x) if index < self.steps else x
        return torch.relu(x + shortcut)


class ResNet(nn.Module):
    """He et al. 2015, table 1, as torchvision arranges it."""

    def __init__(self, bottleneck, depths, groups, inner):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                width, strides = 64 * 2**stage, 2 if stage and not index else 1
                blocks.append(Block(channels, width, strides, groups, inner if bottleneck else 0))
                channels = width * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def build(name):
    """The net with statistics that make every branch count."""
    torch.manual_seed(0)
    net = ResNet(*NETS[name]).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net


def images():
    """The same float32 images (n, h, w, c) for both sides."""
    return np.random.default_rng(0).normal(size=INPUT_SHAPE).astype("float32")


def scores(net):
    with torch.no_grad():
        return net(torch.from_numpy(images().transpose(0, 3, 1, 2))).numpy()


if __name__ == "__main__":
    name, state, expected, *back = sys.argv[1:]
    net = build(name)
    before = scores(net)
    if back:
        net = ResNet(*NETS[name]).eval()
        net.load_state_dict(load_file(back[0]), strict=True)
        print(np.abs(scores(net) - before).max())
    else:
        save_file(net.state_dict(), state)
        np.save(expected, before)
