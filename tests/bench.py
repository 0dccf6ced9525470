"""Us against the peers, interleaved in one go, as ratios: `make bench`, or tests/bench.py NAME ...

Every row is the median over rounds of the ratio ours / theirs within a round, with the smallest and largest,
so that a machine whose speed drifts does not decide. The limit stands beside it; the exit code is 1 where one is
exceeded. The rows are functions of the files in benches/.
"""

import functools
import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from benches import building, exporting, images, latency, quantizers, rounds, tiny, training  # noqa: E402

BENCHES = {
    "step": training.step,
    "step_imagenet": training.step_imagenet,
    "replicas": training.replicas,
    "starting": training.starting,
    "input_memory": images.input_memory,
    "building": building.building,
    "loading": building.loading,
    "importing": building.importing,
    "images": images.images,
    "crops": images.training_crops,
    "latency": latency.latency,
    "resnet8": tiny.resnet8,
    "exporting": exporting.exporting,
    "export_memory": exporting.memory,
    "export_cifar": exporting.cifar,
    **{f"quantizers_{net}": functools.partial(quantizers.quantizers, net) for net in quantizers.NETS},
    **{f"agreement_{net}": functools.partial(quantizers.agreement, net) for net in ("ResNet18", "ResNet50")},
}

if __name__ == "__main__":
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs")
    for bench in sys.argv[1:] or BENCHES:
        BENCHES[bench]()
    sys.exit(any(rounds.OVER))
