"""Whole channels left out of a net, which makes it smaller and faster on any hardware.

Filter pruning (Li et al. 2017, arXiv 1608.08710): a channel that one convolution makes and one other takes, past
layers that treat each channel for itself, can go from both, and nothing else changes. These are the inner channels of
residual blocks; the channels that blocks add to stay.
"""

import collections
import dataclasses

import keras
import numpy as np

MULTIPLE = 8  # that numbers of channels are rounded to: XNNPACK takes a little more as long (BUILD_NOTES.md)

CHANNELWISE = (
    keras.layers.BatchNormalization,
    keras.layers.ReLU,
    keras.layers.Dropout,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    """Channels that can go.

    Attributes:
        maker: `keras.layers.Conv2D` that computes them.
        between: the layers that they pass, one after the other.
        taker: `keras.layers.Conv2D` that alone sees them.
    """

    maker: keras.layers.Conv2D
    between: tuple
    taker: keras.layers.Conv2D


def find(model):
    """The inner channels of a net.

    Args:
        model: functional `keras.Model`, channels last.
    Returns:
        list of `Inner`, in the order of the layers.
    """
    takers = collections.defaultdict(list)
    for layer in model.layers:
        for tensor in keras.tree.flatten(layer.input):
            takers[id(tensor)].append(layer)
    found = [_follow(layer, takers) for layer in model.layers if _is_plain(layer)]
    return [inner for inner in found if inner]


def _is_plain(layer):
    """Whether it is a convolution in which every output sees every input."""
    return type(layer) is keras.layers.Conv2D and layer.groups == 1


def _follow(maker, takers):
    """`Inner` of a convolution, or None where its channels go elsewhere too."""
    between, layer = [], maker
    while len(takers[id(layer.output)]) == 1:
        (layer,) = takers[id(layer.output)]
        if _is_plain(layer):
            return Inner(maker, tuple(between), layer)
        if type(layer) not in CHANNELWISE or getattr(layer, "data_format", "") == "channels_first":
            return None
        between.append(layer)
    return None


def choose(model, share):
    """Which inner channels stay: those of the filters with the largest sums of absolute weights (Li et al. 2017).

    Args:
        model: functional `keras.Model`.
        share: of each convolution's inner channels that go, 0 to 1; what stays is rounded to a multiple of MULTIPLE.
    Returns:
        dict from the name of a convolution to the numbers of its channels that stay, int64, in rising order.
    Raises:
        ValueError: if nothing can go.
    """
    kept = {}
    for inner in find(model):
        size = _num_kept(inner.maker.filters, share)
        if size < inner.maker.filters:
            sizes = np.abs(np.asarray(inner.maker.kernel)).sum(axis=(0, 1, 2))
            kept[inner.maker.name] = np.sort(np.argsort(-sizes, kind="stable")[:size])
    if not kept:
        raise ValueError(
            "The net has no channels that can go. Expected convolutions without groups whose output one other alone "
            f"takes, as in residual blocks, of more than {MULTIPLE} channels. Received: {model.name}, with a share of "
            f"{share} to leave out."
        )
    return kept


def _num_kept(filters, share):
    wanted = MULTIPLE * round(filters * (1 - share) / MULTIPLE)
    return min(filters, max(MULTIPLE, wanted))


def without(model, kept):
    """A copy of a net with the inner channels that stay alone.

    Args:
        model: functional `keras.Model`.
        kept: as of `choose`.
    Returns:
        `keras.Model` with the same layers by name.
    """

    def narrower(layer):
        config = layer.get_config()
        if layer.name in kept:
            config["filters"] = len(kept[layer.name])
        return layer.from_config(config)

    copy = keras.models.clone_model(model, clone_function=narrower)
    weights = {layer.name: [np.asarray(weight) for weight in layer.weights] for layer in model.layers}
    for inner in find(model):
        if inner.maker.name in kept:
            channels = kept[inner.maker.name]
            for layer in (inner.maker, *inner.between):  # the last axis of all their weights
                weights[layer.name] = [weight[..., channels] for weight in weights[layer.name]]
            kernel, *bias = weights[inner.taker.name]
            weights[inner.taker.name] = [kernel[:, :, channels], *bias]
    for layer in copy.layers:
        layer.set_weights(weights[layer.name])
    return copy
