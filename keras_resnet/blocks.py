"""Stems and residual blocks: functions from tensor to tensor.

"He 2015" is arXiv 1512.03385 (the post-activation nets), "He 2016" is arXiv 1603.05027 (V2).
Every layer has a stable name, and every layer is a stock Keras layer, so that a saved model loads
without this package.
"""

import dataclasses
from collections.abc import Callable

import keras

from keras_resnet import shortcuts

# torch.nn.BatchNorm2d defaults, used by torchvision's ResNets and by the authors' Caffe release
# (eps 1e-5). torch's momentum 0.1 weighs the new batch; Keras's 0.9 the old average: the same.
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9

BOTTLENECK_EXPANSION = 4  # He 2015, table 1: the last 1x1 has 4 times the base filters.


def he_normal():
    """Zero-mean Gaussian of variance 2 / fan_in (He et al. 2015, arXiv 1502.01852, eq. 10).

    A new object a layer: an initializer used twice draws the same numbers twice.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What the user may choose about every block of a net.

    Attributes:
        shortcut: "A", "B", "C" (He 2015, section 4.1), one of `shortcuts.CHANGES`, or None for a plain net.
        stride_in: "1x1" (He 2015) or "3x3" ("v1.5") for bottlenecks; None where there is no choice.
        zero_init_residual: start each residual branch's last gamma at 0 (Goyal et al. 2017).
        padding: on strided layers, "symmetric" pads both sides by kernel_size // 2, as the paper's
            and torch's nets do; "same" is TensorFlow's, a pixel off where strides is 2.
        groups: of a bottleneck's 3x3 (ResNeXt's cardinality).
        inner_width: filters of a bottleneck's 3x3, in multiples of the base filters.
        squeeze: channels per hidden unit of a squeeze-and-excitation gate; 0: no gate.
        pooled_shortcut: a strided projection averages 2x2 pixels instead of dropping three (ResNet-D).
        drop_rate: share of the images, in training, for which a residual branch is left out (arXiv 1603.09382).
        dilations: of the 3x3 convolutions before and after the block's stride; they differ where
            `output_stride` took the stride away.
        kernel_initializer: makes the initializer of one layer.
    """

    shortcut: str | None = "B"
    stride_in: str | None = None
    zero_init_residual: bool = False
    padding: str = "symmetric"
    groups: int = 1
    inner_width: int = 1
    squeeze: int = 0
    pooled_shortcut: bool = False
    drop_rate: float = 0.0
    dilations: tuple = (1, 1)
    kernel_initializer: Callable = he_normal

    @property
    def last_gamma(self):
        """Initializer of the gamma that ends a residual branch."""
        return "zeros" if self.zero_init_residual else "ones"


def channel_axis():
    """Axis of the channels under `keras.config.image_data_format()`: -1 or 1."""
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def num_channels(x):
    """Number of channels of a batch of feature maps."""
    return x.shape[channel_axis()]


def conv(x, filters, kernel_size, strides, options, *, groups=1, dilation=1, use_bias=False, name):
    """Convolution with the size kept at stride 1: (n, h, w, c) -> (n, h/strides, w/strides, filters).

    Args:
        x: float tensor (n, h, w, c).
        filters: output channels.
        kernel_size: side of the square kernel, in pixels.
        strides: 1, or 2 to halve height and width.
        options: `BlockOptions`, of which padding and kernel_initializer apply.
        groups: the channels are cut into so many, convolved apart.
        dilation: pixels between the kernel's taps; 1 unless strides is 1.
        use_bias: True only where no batch normalization follows.
        name: name of the layer; its explicit padding is called `name` + "_pad".
    Returns:
        float tensor.
    """
    padding = "same"
    if strides > 1 and options.padding == "symmetric":
        padding = "valid"
        if kernel_size > 1:
            x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer=options.kernel_initializer(),
        name=name,
    )(x)


def batch_norm(x, *, gamma="ones", name):
    """Batch normalization over the channels, with this package's epsilon and momentum."""
    return keras.layers.BatchNormalization(
        axis=channel_axis(),
        epsilon=BN_EPSILON,
        momentum=BN_MOMENTUM,
        gamma_initializer=gamma,
        name=name,
    )(x)


def relu(x, *, name):
    """Rectified linear unit."""
    return keras.layers.ReLU(name=name)(x)


def imagenet_stem(x, filters, options):
    """7x7 convolution of stride 2, BN, ReLU, 3x3 max pooling of stride 2 (He 2015, table 1, conv1)."""
    x = conv(x, filters, 7, 2, options, name="stem_conv")
    x = batch_norm(x, name="stem_bn")
    x = relu(x, name="stem_relu")
    return _stem_pool(x)


def deep_stem(x, filters, options):
    """Three 3x3 convolutions, the first of stride 2, in place of the 7x7 (arXiv 1812.01187, figure 2b)."""
    for index, (width, strides) in enumerate(((filters // 2, 2), (filters // 2, 1), (filters, 1)), start=1):
        x = conv(x, width, 3, strides, options, name=f"stem_conv{index}")
        x = batch_norm(x, name=f"stem_bn{index}")
        x = relu(x, name=f"stem_relu{index}")
    return _stem_pool(x)


def imagenet_v2_stem(x, filters, options):
    """As `imagenet_stem` without BN and ReLU: the first block brings them (He 2016, appendix)."""
    x = conv(x, filters, 7, 2, options, use_bias=True, name="stem_conv")
    return _stem_pool(x)


def cifar_stem(x, filters, options):
    """3x3 convolution, BN, ReLU at full resolution (He 2015, section 4.2)."""
    x = conv(x, filters, 3, 1, options, name="stem_conv")
    x = batch_norm(x, name="stem_bn")
    return relu(x, name="stem_relu")


def _stem_pool(x):
    # Zeros, not -inf, around the map: equal after a ReLU, and what keras.applications' V2 nets do.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def basic_block(x, filters, strides, options, name):
    """Two 3x3 convolutions and a shortcut: (n, h, w, c) -> (n, h/strides, w/strides, filters).

    He 2015, figure 5 left. Order: conv, BN, ReLU, conv, BN, addition, ReLU.

    Args:
        x: float tensor (n, h, w, c), output of the previous block.
        filters: output channels of both convolutions.
        strides: 1, or 2 to halve height and width.
        options: `BlockOptions`; with shortcut None this is the plain net's pair of layers.
        name: prefix of every layer name.
    Returns:
        float tensor, same dtype as `x`.
    """
    shortcut = _shortcut(x, filters, strides, options, name)
    before, after = options.dilations
    x = conv(x, filters, 3, strides, options, dilation=before, name=f"{name}_conv1")
    x = batch_norm(x, name=f"{name}_bn1")
    x = relu(x, name=f"{name}_relu1")
    x = conv(x, filters, 3, 1, options, dilation=after, name=f"{name}_conv2")
    x = batch_norm(x, gamma=options.last_gamma, name=f"{name}_bn2")
    return _merge(x, shortcut, options, name)


def bottleneck_block(x, filters, strides, options, name):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (n, h, w, c) -> (n, h/strides, w/strides, 4 filters).

    He 2015, figure 5 right. `options.stride_in` says which convolution has the stride: the first
    1x1 (the paper) or the 3x3 ("v1.5", as in torchvision, better by about half a point). With groups
    or a wider 3x3 it is ResNeXt's (arXiv 1611.05431) or Wide ResNet's (arXiv 1605.07146) block, with
    squeeze SE-ResNet's (arXiv 1709.01507).

    Args:
        x: float tensor (n, h, w, c), output of the previous block.
        filters: output channels of the first two convolutions.
        strides: 1, or 2 to halve height and width.
        options: `BlockOptions`.
        name: prefix of every layer name.
    Returns:
        float tensor, same dtype as `x`.
    """
    before, after = options.dilations
    outer, inner, dilation = (strides, 1, after) if options.stride_in == "1x1" else (1, strides, before)
    width, expanded = options.inner_width * filters, BOTTLENECK_EXPANSION * filters
    shortcut = _shortcut(x, expanded, strides, options, name)
    x = conv(x, width, 1, outer, options, name=f"{name}_conv1")
    x = batch_norm(x, name=f"{name}_bn1")
    x = relu(x, name=f"{name}_relu1")
    x = conv(x, width, 3, inner, options, groups=options.groups, dilation=dilation, name=f"{name}_conv2")
    x = batch_norm(x, name=f"{name}_bn2")
    x = relu(x, name=f"{name}_relu2")
    x = conv(x, expanded, 1, 1, options, name=f"{name}_conv3")
    x = batch_norm(x, gamma=options.last_gamma, name=f"{name}_bn3")
    if options.squeeze:
        x = _squeeze_and_excite(x, options, name)
    return _merge(x, shortcut, options, name)


def preactivation_block(x, filters, strides, options, name):
    """BN and ReLU before each of 1x1, 3x3, 1x1: (n, h, w, c) -> (n, h/strides, w/strides, 4 filters).

    He 2016, figure 4(e), as in keras.applications' `ResNet50V2`, whose weights fit: the shortcut
    is subsampled where only the size changes and projected (with a bias, from the activated input)
    where the channels change; the last convolution has a bias, since no BN follows it directly.

    Args:
        x: float tensor (n, h, w, c), output of the previous block.
        filters: output channels of the first two convolutions.
        strides: 1, or 2 to halve height and width, in the 3x3.
        options: `BlockOptions`; shortcut and stride_in leave no choice here.
        name: prefix of every layer name.
    Returns:
        float tensor, same dtype as `x`.
    """
    expanded = BOTTLENECK_EXPANSION * filters
    preact = batch_norm(x, name=f"{name}_preact_bn")
    preact = relu(preact, name=f"{name}_preact_relu")
    if num_channels(x) != expanded:
        shortcut = conv(preact, expanded, 1, strides, options, use_bias=True, name=f"{name}_shortcut_conv")
    else:
        shortcut = _subsample(x, strides, name)
    x = conv(preact, filters, 1, 1, options, name=f"{name}_conv1")
    x = batch_norm(x, name=f"{name}_bn1")
    x = relu(x, name=f"{name}_relu1")
    x = conv(x, filters, 3, strides, options, dilation=options.dilations[0], name=f"{name}_conv2")
    x = batch_norm(x, name=f"{name}_bn2")
    x = relu(x, name=f"{name}_relu2")
    x = conv(x, expanded, 1, 1, options, use_bias=True, name=f"{name}_conv3")
    x = _drop_branch(x, options, name)
    return keras.layers.Add(name=f"{name}_out")([shortcut, x])


def _shortcut(x, filters, strides, options, name):
    """The path around a block: None, the identity, padded (A) or projected (B, C)."""
    if options.shortcut is None:
        return None
    before, after = options.dilations
    if options.pooled_shortcut and (strides > 1 or before != after):
        pool = keras.layers.AveragePooling2D(2, strides=strides, padding="same", name=f"{name}_shortcut_pool")
        x, strides = pool(x), 1
    changed = strides > 1 or num_channels(x) != filters
    if options.shortcut == "C" or (options.shortcut == "B" and changed):
        x = conv(x, filters, 1, strides, options, name=f"{name}_shortcut_conv")
        return batch_norm(x, name=f"{name}_shortcut_bn")
    return _pad_channels(_subsample(x, strides, name), filters, name)


def _subsample(x, strides, name):
    """Every second row and column; pooling over one pixel does it in one op on every device."""
    if strides == 1:
        return x
    return keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_shortcut_pool")(x)


def _squeeze_and_excite(x, options, name):
    """Each channel times a gate in (0, 1) that a small net draws from all channels' means: shape of `x`."""
    channels = num_channels(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)
    gate = conv(gate, channels // options.squeeze, 1, 1, options, use_bias=True, name=f"{name}_se_conv1")
    gate = relu(gate, name=f"{name}_se_relu")
    gate = conv(gate, channels, 1, 1, options, use_bias=True, name=f"{name}_se_conv2")
    gate = keras.layers.Activation("sigmoid", name=f"{name}_se_sigmoid")(gate)
    return keras.layers.Multiply(name=f"{name}_se_scale")([x, gate])


def _pad_channels(x, filters, name):
    """Zero channels on both sides, half each, as the trained CIFAR nets that people share have them."""
    missing = filters - num_channels(x)
    if missing == 0:
        return x
    sides = (missing // 2, missing - missing // 2)
    # A padding layer told the other data format takes the channels for one of the image's sides.
    if channel_axis() == -1:
        padding, data_format = ((0, 0), sides), "channels_first"
    else:
        padding, data_format = (sides, (0, 0)), "channels_last"
    return keras.layers.ZeroPadding2D(padding, data_format=data_format, name=f"{name}_shortcut_pad")(x)


def _drop_branch(x, options, name):
    """Zeros for whole images in training, the others scaled up, so that the mean stays (arXiv 1603.09382)."""
    if not options.drop_rate:
        return x
    return keras.layers.Dropout(options.drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)


def _merge(x, shortcut, options, name):
    if shortcut is not None:
        x = _drop_branch(x, options, name)
        if options.shortcut in shortcuts.CHANGES:
            shortcut, x = shortcuts.CHANGES[options.shortcut](shortcut, x, options, name)
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return relu(x, name=f"{name}_out")
