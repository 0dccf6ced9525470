"""Training steps of a net in eager torch: `python -m benches.torch_steps ResNet20|ResNet50 BATCH_SIZE DTYPE` in tests/.

Reads numbers of steps from its input, a line each, and answers each with a line when they are done.
"""

import itertools
import sys

import torch
import torch_resnet
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, before, filters):
        super().__init__()
        self.strides, self.missing = filters // before, (filters - before) // 2
        self.conv1, self.bn1 = nn.Conv2d(before, filters, 3, self.strides, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.strides, :: self.strides]
        return functional.relu(y + functional.pad(shortcut, (0, 0, 0, 0, self.missing, self.missing)))


def resnet20():
    """The paper's net for CIFAR-10, option A."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(*pair) for pair in itertools.pairwise(widths)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETS = {"ResNet20": (resnet20, 32), "ResNet50": (lambda: torch_resnet.build("ResNet50"), 224)}


def main(name, size, dtype):
    """Trains as many steps as it is told to, again and again."""
    build, side = NETS[name]
    model = build().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(size, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (size,))
    for line in sys.stdin:
        for _ in range(int(line)):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = functional.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
