"""The builder: from a row of `VARIANTS` to a `keras.Model`, with keras.applications' signature."""

import contextlib
import dataclasses
import difflib
import functools
import gc
import sys
import warnings

import keras
import numpy as np

from keras_resnet import blocks, importers, layouts, stored
from keras_resnet import weights as weights_files
from keras_resnet.preprocessing import RAW
from keras_resnet.variants import VARIANTS

# Layers of the head, in keras.applications' words.
POOLING_LAYERS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}

_SHARED_FIELDS = ("padding", "groups", "inner_width", "squeeze", "pooled_shortcut")  # of rows and block options

_DOC = """{title} ({source}): images (n, h, w, c) -> class scores (n, classes), or features.

    The arguments stand in the order of `keras.applications`.

    Args:
        include_top: whether pooling and the classifier end the net.
        weights: None for random He initialisation; "imagenet" for the best published ones, or a tag of
            `list_weights`; or the path of a file of the same net: `.keras` or `.weights.h5`, `.safetensors` or
            `.pth` with torchvision's or timm's names, keras.applications' `.h5`.
        input_tensor: Keras tensor (n, h, w, c) to build the net on, instead of a new input.
        input_shape: (h, w, c), or (c, h, w) under the channels-first data format. Sides may be
            None or at least {min_size} pixels; any number of channels. Default: {size} x {size} x 3, or the
            size that published weights were evaluated at.
        pooling: without a top: None for the last feature map (n, h/{min_size}, w/{min_size}, c), "avg" or
            "max" for vectors (n, c).
        classes: number of classes; other than the weights', the classifier starts from random weights.
        classifier_activation: "softmax", or None for logits. Scores are float32 under mixed precision.
        name: name of the model, "{name}" by default.
        shortcut: one of {shortcuts} (He et al. 2015, section 4.1; None: plain net; words: He et al. 2016, table 1).
        stride_in: the bottleneck's strided convolution, one of {strides_in} ("3x3" is "v1.5"). None:
            what the weights were trained with, the first of these without weights.
        dropout: rate before the classifier, 0 to 1.
        stochastic_depth: rate at which the last residual branch is left out in training, image by image; it rises
            from 0 in proportion to depth (arXiv 1603.09382).
        zero_init_residual: start each residual branch's last gamma at zero (arXiv 1706.02677).
        output_stride: input pixels per pixel of the last map, one of {output_strides}: beyond it strides become
            dilations, with the same weights, for segmentation (arXiv 1606.00915, section 3.1).
        include_preprocessing: whether the net takes pixels RGB, or grey, from 0 to 255 and normalizes them itself.
    Returns:
        `keras.Model`; `keras_resnet.preprocessor(model)` makes its input from photographs.
    Raises:
        ValueError: for an argument outside the above, or weights that do not fit.
    """


def build(name, **arguments):
    """Builds the variant called `name`; the arguments are those of `keras_resnet.ResNet50`.

    Args:
        name: one of `list_models()`.
        **arguments: keyword arguments of the builder of that name.
    Returns:
        `keras.Model`.
    Raises:
        ValueError: if there is no such variant; the nearest names are given.
    """
    if name not in VARIANTS:
        nearest = difflib.get_close_matches(str(name), VARIANTS, n=3, cutoff=0.4)
        raise ValueError(
            f"There is no such model. Expected one of keras_resnet.list_models(). "
            f"Received: {name!r}. Nearest: {', '.join(nearest) or 'none'}."
        )
    return BUILDERS[name](**arguments)


def _make_builder(title, variant):
    """Public builder of one row, with a real signature whose defaults are the row's."""
    published = "imagenet" if weights_files.best(title) else None

    def builder(
        include_top=True,
        weights=published,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=variant.classes,
        classifier_activation="softmax",
        name=None,
        *,
        shortcut=variant.shortcuts[0],
        stride_in=None,
        dropout=0.0,
        stochastic_depth=0.0,
        zero_init_residual=False,
        output_stride=variant.total_strides,
        include_preprocessing=False,
    ):
        _check_choice(title, "shortcut", shortcut, variant.shortcuts)
        _check_choice(title, "stride_in", stride_in, (None, *variant.strides_in))
        _check_choice(title, "output_stride", output_stride, variant.output_strides)
        _check_choice(title, "pooling", pooling, (None, *POOLING_LAYERS))
        _check_head(classes, dropout)
        _check_rate("stochastic_depth", stochastic_depth)
        if stochastic_depth and shortcut is None:
            raise ValueError(
                f"{title}: stochastic_depth needs shortcuts, which a plain net has not. "
                f"Received: stochastic_depth={stochastic_depth}. Leave it out."
            )
        if zero_init_residual and (shortcut is None or variant.preactivation):
            raise ValueError(
                f"{title}: zero_init_residual needs residual branches that end in a batch normalization, behind a "
                "shortcut. Received: zero_init_residual=True. Leave it out."
            )
        with _opened(title, weights) as (source, row, preprocessing):
            options = blocks.BlockOptions(
                shortcut=shortcut,
                stride_in=_stride_in(title, stride_in, source, row),
                zero_init_residual=zero_init_residual,
                drop_rate=stochastic_depth,
                kernel_initializer=keras.initializers.Zeros if source else blocks.he_normal,
                **{field: getattr(variant, field) for field in _SHARED_FIELDS},
            )
            allow_depth(sum(variant.depths))
            inputs = _inputs(preprocessing.crop, variant, input_tensor, input_shape)
            with _collector_paused():
                x = _normalized(inputs, preprocessing) if include_preprocessing else inputs
                x = _feature_map(variant, x, options, output_stride)
                if include_top:
                    head = functools.partial(_classifier, classes=classes, activation=classifier_activation)
                    x = head(x, dropout=dropout, options=options)
                elif pooling:
                    x = POOLING_LAYERS[pooling](name=f"{pooling}_pool")(x)
                model = _model(inputs, x, name or title.lower())
            if source:
                importers.load(model, source)
        _remember(model, inputs, preprocessing, include_preprocessing)
        return model

    builder.__name__ = builder.__qualname__ = title
    builder.__module__ = "keras_resnet"
    builder.__doc__ = _DOC.format(
        title=title,
        source=variant.source,
        min_size=variant.total_strides,
        size=variant.image_size,
        name=title.lower(),
        shortcuts=variant.shortcuts,
        strides_in=variant.strides_in,
        output_strides=variant.output_strides,
    )
    return builder


def allow_depth(num_blocks):
    """Lets Keras walk a net of that many blocks, which it does by recursion, a call a layer.

    Python's limit of 1,000 calls stops it at ResNet-1202. The limit stays raised, because
    `load_model`, `clone_model` and every new `keras.Model` on the net walk it again.

    Args:
        num_blocks: residual blocks in the net; each has fewer than 20 layers.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + 20 * num_blocks))


def _feature_map(variant, x, options, output_stride):
    """Stem and stages: (n, h, w, c) -> (n, h/output_stride, w/output_stride, filters)."""
    x = variant.stem(x, variant.width, options)
    stride, dilation, num_blocks = variant.stem_strides, 1, 0
    for stage, depth in enumerate(variant.depths, start=1):
        filters = variant.width * 2 ** (stage - 1)
        for block in range(1, depth + 1):
            strides, before = variant.strides(stage, block), dilation
            if stride * strides > output_stride:
                strides, dilation = 1, dilation * strides
            stride *= strides
            num_blocks += 1
            drop_rate = options.drop_rate * num_blocks / sum(variant.depths)
            block_options = dataclasses.replace(options, dilations=(before, dilation), drop_rate=drop_rate)
            x = variant.block(x, filters, strides, block_options, f"stage{stage}_block{block}")
    if variant.preactivation:
        x = blocks.batch_norm(x, name="post_bn")
        x = blocks.relu(x, name="post_relu")
    return x


def _classifier(x, *, classes, activation, dropout, options):
    """Global average pooling and a dense layer whose scores are float32 whatever the policy."""
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=options.kernel_initializer(),
        dtype=keras.config.floatx(),
        name="predictions",
    )(x)


def _normalized(pixels, preprocessing):
    """Pixels 0 to 255 (n, h, w, c) -> the net's input, in float32 whatever the policy."""
    channels = blocks.num_channels(pixels)
    if channels not in (1, 3):
        raise ValueError(f"include_preprocessing needs images with 1 or 3 channels. Received: {channels}.")
    scale, offset = preprocessing.scale_and_offset(channels)
    if preprocessing.channel_order == "bgr":
        scale, offset = scale[::-1], offset[::-1]
    if blocks.channel_axis() == 1:
        scale, offset = (np.reshape(values, (-1, 1, 1)).tolist() for values in (scale, offset))
    return keras.layers.Rescaling(scale, offset, dtype=keras.config.floatx(), name="preprocessing")(pixels)


def _remember(model, inputs, preprocessing, is_included):
    """Notes on the model what is left to do before it; one that includes its preprocessing takes RGB."""
    stem = next(layer for layer in model.layers if layer.name.startswith("stem_conv") and layer.weights)
    if is_included and preprocessing.channel_order == "bgr" and stem.kernel.shape[2] == 3:
        stem.kernel.assign(stem.kernel[:, :, ::-1])
    if is_included:
        preprocessing = dataclasses.replace(preprocessing, **RAW)
    height, width = (inputs.shape[axis] for axis in ((1, 2) if blocks.channel_axis() == -1 else (2, 3)))
    model.preprocessing = preprocessing.for_size(height) if height and height == width else preprocessing


def _model(inputs, outputs, name):
    """`keras.Model` from whatever `inputs` comes of."""
    sources = keras.utils.get_source_inputs(inputs)
    return keras.Model(sources[0] if len(sources) == 1 else sources, outputs, name=name)


@contextlib.contextmanager
def _opened(title, weights):
    """The weights file, open, or None; its row of `WEIGHTS` or None; its `Preprocessing` or the net's usual one."""
    path, row = weights_files.resolve(title, weights)
    preprocessing = weights_files.preprocessing_of(title, row)
    if path is None:
        yield None, None, preprocessing
        return
    with stored.open_weights(path) as source:
        yield source, row, preprocessing if row else layouts.preprocessing(source, VARIANTS[title], preprocessing)


def _inputs(size, variant, input_tensor, input_shape):
    """The Keras tensor to build on, checked."""
    if input_tensor is not None:
        if not keras.utils.is_keras_tensor(input_tensor):
            raise ValueError(
                "input_tensor must be a Keras tensor, such as keras.Input(shape=(224, 224, 3)). "
                f"Received: {type(input_tensor).__name__}."
            )
        _check_shape(variant, tuple(input_tensor.shape[1:]))
        return input_tensor
    if input_shape is None:
        input_shape = (size, size, 3) if blocks.channel_axis() == -1 else (3, size, size)
    if not isinstance(input_shape, (tuple, list)):
        raise ValueError(f"input_shape must be a tuple of height, width and channels. Received: {input_shape!r}.")
    _check_shape(variant, tuple(input_shape))
    return keras.Input(tuple(input_shape), name="image")


def _check_shape(variant, shape):
    channels_last = blocks.channel_axis() == -1
    order = "(height, width, channels)" if channels_last else "(channels, height, width)"
    sides = list(shape)
    channels = sides.pop(-1 if channels_last else 0) if len(shape) == 3 else None
    if channels is None or channels < 1:
        raise ValueError(
            f"input_shape must be {order} with the number of channels known. Received: input_shape={shape}."
        )
    smallest = variant.total_strides
    if any(side is not None and side < smallest for side in sides):
        raise ValueError(
            f"The input is too small: the net divides height and width by {smallest}. Expected {order} with "
            f"sides of at least {smallest} pixels, or None. Received: input_shape={shape}."
        )


def _stride_in(title, asked, source, row):
    """`stride_in` of the net: what was asked for, else what the weights were trained with, else the paper's."""
    if row and asked and asked != row.stride_in:
        raise ValueError(
            f"The weights {row.tag!r} of {title} were trained with stride_in={row.stride_in!r}. "
            f"Received: stride_in={asked!r}. Leave it out, or pass other weights."
        )
    allowed = VARIANTS[title].strides_in
    if source is None:
        return asked or allowed[0]
    found = layouts.stride_in(source, allowed)
    if asked and asked != found:
        warnings.warn(
            f"Files such as {source.path!r} are of nets with stride_in={found!r}; the scores are wrong unless this one "
            f"was trained with stride_in={asked!r}.",
            importers.AdaptedWeights,
            stacklevel=3,
        )
    return asked or found


def _check_choice(title, argument, value, allowed):
    if value not in allowed:
        expected = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{title}: {argument} must be one of {expected}. Received: {argument}={value!r}.")


def _check_head(classes, dropout):
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be a whole number of at least 1. Received: classes={classes!r}.")
    _check_rate("dropout", dropout)


def _check_rate(argument, rate):
    if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ValueError(f"{argument} must be a rate from 0 up to, not including, 1. Received: {rate!r}.")


@contextlib.contextmanager
def _collector_paused():
    """Pauses Python's cyclic garbage collector, which took a third of the time of building a net.

    Everything that is made stays alive, so it scans the growing net again and again in vain
    (figures: BUILD_NOTES.md, "Building").
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


BUILDERS = {title: _make_builder(title, variant) for title, variant in VARIANTS.items()}
