"""Our own flatbuffers against the Keras model and against TFLiteConverter's."""

import collections

import flatbuffers
import golden
import keras
import numpy as np
import pytest
import walks
from ai_edge_litert import schema_py_generated as schema

import keras_resnet
from export import flatbuffer, walk
from train import predictor

# A net of every block, stem, shortcut and padding; the deeper ones repeat them.
FAMILIES = ("ResNet20", "ResNet20-C", "PlainNet20", "ResNet8", "ResNet18-A", "ResNet50V2", "ResNet50D", "SEResNet50")
FAMILIES += ("ResNeXt50_32x4d", "ResNet20-scaled")


def images_for(model, num_images=2):
    return np.random.default_rng(0).integers(0, 256, (num_images, *model.input_shape[1:])).astype("uint8")


def written(graph, tmp_path):
    path = tmp_path / "ours.tflite"
    path.write_bytes(flatbuffer.to_bytes(graph))
    return str(path)


def relative(scores, expected):
    return np.abs(scores - expected).max() / np.abs(expected).max()


@pytest.mark.contract
@pytest.mark.parametrize("case", FAMILIES)
def test_a_file_of_ours_is_the_converters_and_the_keras_models(case, tmp_path):
    """The same operators in the same versions, a size within 2 %, the same scores."""
    assert walks.compared(case, str(tmp_path)).failures() == []


@pytest.mark.unit
@pytest.mark.parametrize("batch_size", [1, 3])
def test_preprocessing_and_batch_norm_fold_and_probabilities_stay(batch_size, tmp_path):
    model = keras_resnet.ResNet8(classes=7, include_preprocessing=True, dropout=0.5)
    golden.seed_weights(model)
    graph = walk.from_keras(model, batch_size)
    kinds = collections.Counter(operator.kind for operator in graph.operators)
    # 7 convolutions and 2 projections; 3 additions and the mean's subtraction; the scale went into a kernel.
    assert kinds == {"CAST": 1, "CONV_2D": 9, "ADD": 4, "MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    images = images_for(model, 5)
    scores = predictor.from_tflite(written(graph, tmp_path)).predict(images)
    assert np.abs(scores - predictor.from_keras(model).predict(images)).max() < 1e-5
    assert graph.scores.shape == (batch_size, 7)


@pytest.mark.unit
def test_the_walk_reads_weights_whatever_the_training_dtype(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = golden.build("ResNet20")
    keras.config.set_dtype_policy("float32")
    model = golden.build("ResNet20")
    images = images_for(model)
    scores = predictor.from_tflite(written(walk.from_keras(mixed, 1), tmp_path)).predict(images)
    assert relative(scores, predictor.from_keras(model).predict(images)) < 1e-5


@pytest.mark.unit
def test_a_batch_norm_whose_convolution_others_use_is_not_folded(tmp_path):
    image = keras.Input((6, 6, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    norm = keras.layers.BatchNormalization(name="bn")(conv)
    both = keras.layers.Add(name="add")([keras.layers.ReLU(name="relu")(norm), conv])
    scores = keras.layers.Dense(2, name="dense")(keras.layers.GlobalAveragePooling2D(name="pool")(both))
    model = keras.Model(image, scores)
    golden.seed_weights(model)
    images = images_for(model)
    ours = predictor.from_tflite(written(walk.from_keras(model, 1), tmp_path)).predict(images)
    assert relative(ours, predictor.from_keras(model).predict(images)) < 1e-5


def unknown_models():
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()
    depthwise = keras.layers.DepthwiseConv2D(3, name="strange")(image)
    leaky = keras.layers.ReLU(negative_slope=0.1, name="strange")(image)
    tanh = keras.layers.Activation("tanh", name="strange")(image)
    return {
        name: keras.Model(image, keras.layers.Dense(2)(pooled(x)))
        for name, x in (("DepthwiseConv2D", depthwise), ("negative_slope", leaky), ("tanh", tanh))
    }


@pytest.mark.unit
@pytest.mark.parametrize("name", ["DepthwiseConv2D", "negative_slope", "tanh"])
def test_an_unknown_layer_is_named(name):
    with pytest.raises(walk.UnknownLayerError, match=f"(?s)strange.*{name}|{name}.*strange"):
        walk.from_keras(unknown_models()[name], 1)


@pytest.mark.unit
def test_every_buffer_starts_at_a_multiple_of_sixteen_bytes():
    """LiteRT's schema asks for it (force_align), and kernels may read weights that way."""
    content = flatbuffer.to_bytes(walk.from_keras(golden.build("ResNet20"), 1))
    model = schema.Model.GetRootAs(content, 0)
    offsets = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in map(model.Buffers, range(model.BuffersLength()))
               if not buffer.DataIsNone()]  # fmt: skip
    assert len(offsets) > 40
    assert all(offset % flatbuffer.ALIGNMENT == 0 for offset in offsets)
    assert content[4:8] == b"TFL3"
    assert flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0) < len(content)
