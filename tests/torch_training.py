"""Steps of SGD on the paper's ResNet-20 in torch, from given weights and batches: the reference for the trainer.

    python tests/torch_training.py GIVEN.npz FOUND.npz

GIVEN.npz: "images" float32 (steps, n, 32, 32, 3), "labels" int64 (steps, n), "rate", "momentum", "decay", and the
weights as "0", "1", ... in Keras's order and layout. FOUND.npz gets "losses" (steps,) and the weights after.
"""

import sys

import numpy as np
import torch
from benches.torch_steps import resnet20
from torch.nn import functional

AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # from Keras's layout of a kernel to torch's


def states(net):
    """The tensors that Keras has as well, in its order."""
    return [tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")]


if __name__ == "__main__":
    given = dict(np.load(sys.argv[1]))
    net = resnet20()
    for number, tensor in enumerate(states(net)):
        array = given[str(number)]
        tensor.copy_(torch.from_numpy(array.transpose(AXES.get(array.ndim, range(array.ndim))).copy()))
    rate, momentum, decay = (float(given[name]) for name in ("rate", "momentum", "decay"))
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=momentum, weight_decay=decay)
    losses = []
    for images, labels in zip(given["images"], given["labels"], strict=True):
        optimizer.zero_grad()
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        loss = functional.cross_entropy(net(pixels), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    arrays = [tensor.numpy() for tensor in states(net)]
    after = [array.transpose(np.argsort(AXES[array.ndim])) if array.ndim in AXES else array for array in arrays]
    np.savez(sys.argv[2], losses=losses, **{str(number): array for number, array in enumerate(after)})
