"""Trained nets without one of their blocks: Veit et al. 2016, arXiv 1605.06431, figure 3."""

import re

import numpy as np

from keras_resnet.blocks import BN_EPSILON
from train import input_pipeline, predictor, scoring

BATCH = 250
IMAGES = 2000  # of the test split, on which nets with and without a block are scored


def score(model, source, is_plain):
    """Errors without one block: its residual branch is silenced; a plain net's pair of layers passes its input on.

    Args:
        model: `keras.Model` of basic blocks, from pixels to logits; its weights are as before afterwards.
        source: `train.data.Source` of its images.
        is_plain: whether it has no shortcuts; blocks that change the dimensions then cannot be dropped.
    Returns:
        list of dicts: kind, block from 1, name, test_error in per cent, test_images; the first, of kind "intact", is of
        the net with all blocks on the same images.
    """
    images, labels, _ = input_pipeline.arrays(source, "test", IMAGES)
    names = [layer.name.removesuffix("_conv1") for layer in model.layers if re.fullmatch(r"stage.*_conv1", layer.name)]
    change, found = pass_on if is_plain else silence, predictor.from_keras(model)

    def tested():
        outputs = np.concatenate([found.predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
        return {"test_error": 100 * (1 - scoring.score(outputs, labels).top1), "test_images": len(images)}

    rows = [{"kind": "intact", "block": 0, "name": ""} | tested()]
    for block, name in enumerate(names, start=1):
        first = model.get_layer(f"{name}_conv1")
        if is_plain and (first.strides != (1, 1) or first.kernel.shape[2] != first.kernel.shape[3]):
            continue
        layers = [model.get_layer(f"{name}_{part}") for part in ("conv1", "bn1", "conv2", "bn2")]
        before = [layer.get_weights() for layer in layers]
        change(*layers)
        rows.append({"kind": "dropped", "block": block, "name": name} | tested())
        for layer, weights in zip(layers, before, strict=True):
            layer.set_weights(weights)
    return rows


def silence(conv1, bn1, conv2, bn2):
    """The branch ends in zeros: the block is its shortcut."""
    bn2.gamma.assign(np.zeros(bn2.gamma.shape))
    bn2.beta.assign(np.zeros(bn2.beta.shape))


def pass_on(conv1, bn1, conv2, bn2):
    """Both layers are the identity on what is not negative, as it is behind a ReLU."""
    for conv, norm in ((conv1, bn1), (conv2, bn2)):
        kernel = np.zeros(conv.kernel.shape)
        kernel[1, 1] = np.eye(kernel.shape[2])
        conv.kernel.assign(kernel)
        ones = np.ones(norm.gamma.shape)
        norm.set_weights([ones * np.sqrt(1 + BN_EPSILON), 0 * ones, 0 * ones, ones])
