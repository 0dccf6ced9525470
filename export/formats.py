"""The table of formats: one row a format, with the promise its file is held to before it is written."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What numbers a `.tflite` file computes with.

    Attributes:
        weights: "float32", "float16", "int8" or "int4".
        activations: "float32", "int8" or "int16".
        pixels: "uint8", or "float32" pixels 0 to 255.
        scores: "float32" or "int8".
        rounding: of the weights: "nearest", or "optimal" on calibration images (`rounding.rounded`).
        dense_scales: of a dense layer's integer weights: "channel", one a class, or "one" for all.
        is_for_cpu: whether it takes the forms that XNNPACK runs fastest, which other hardware may refuse: preprocessing
            in float32, the columns of an image in pairs (`equivalents`).
        is_mixed: whether the blocks that lose most in integers stay in float32 (`sensitivity.choose`).
    """

    weights: str
    activations: str = "float32"
    pixels: str = "uint8"
    scores: str = "float32"
    rounding: str = "nearest"
    dense_scales: str = "channel"
    is_for_cpu: bool = False
    is_mixed: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """What a format is and what its file must keep.

    Attributes:
        suffix: what follows the model's name in the file's name.
        scheme: `Scheme` of a `.tflite` file; None of a SavedModel.
        max_size: largest size of the weights, as a share of the float32 file's; None: not promised.
        min_agreement: smallest share of images whose best class is the Keras model's.
        max_difference: largest difference of any logit, as a share of the largest logit; None: not promised.
        suits: hardware that gains by it.
        preparation: None, or how the net is fine-tuned first: one of `finetune.PREPARATIONS`.
    """

    suffix: str
    scheme: Scheme | None
    max_size: float | None
    min_agreement: float
    max_difference: float | None
    suits: str
    preparation: str | None = None

    def needs_images(self, has_ranges):
        """Whether it looks at calibration images; `has_ranges`: of a quantization-aware model."""
        if self.scheme is None:
            return False
        if self.scheme.activations == "float32":
            return self.scheme.rounding == "optimal"
        return self.scheme.is_mixed or not has_ranges


# fmt: off
#                       weights    activations  pixels     scores
_FLOAT32 =       Scheme("float32")
_FLOAT16 =       Scheme("float16")
_DYNAMIC =       Scheme("int8",    is_for_cpu=True)
_INT4 =          Scheme("int4",    rounding="optimal")
_INT8 =          Scheme("int8",    "int8",      "uint8",   "int8",    rounding="optimal")
_INT8_TUNED =    Scheme("int8",    "int8",      "uint8",   "int8")  # whose zeros, values or rounding were trained
_INT8_FLOAT_IO = Scheme("int8",    "int8",      "float32", "float32", rounding="optimal")
_INT8_CPU =      Scheme("int8",    "int8",      "uint8",   "int8",    rounding="optimal", is_for_cpu=True)
_INT8_EDGETPU =  Scheme("int8",    "int8",      "uint8",   "int8",    rounding="optimal", dense_scales="one")
_INT8_MIXED =    Scheme("int8",    "int8",      "uint8",   "float32", rounding="optimal", is_mixed=True)
_FLOAT16_FLOAT_IO = Scheme("float16", pixels="float32")
_INT16X8 =       Scheme("int8",    "int16",     "uint8",   "float32")

# The promises are ours: about twice the worst that was seen on digits, CIFAR-10 and the ImageNet nets, where 1,000 classes
# lie close together (BUILD_NOTES.md, "Quantization"). A SavedModel's size is mostly its graph in a small net.
FORMATS = {
    #                        file                      scheme          size   agree   differ  suits
    "saved_model":    Format("_saved_model",           None,           None,  0.999,  1e-4,   "servers: TensorFlow Serving, tf.data pipelines"),
    "float32":        Format("_float32.tflite",        _FLOAT32,       1.0,   0.999,  1e-4,   "any CPU; the reference on the device"),
    "float16":        Format("_float16.tflite",        _FLOAT16,       0.6,   0.99,   0.02,   "any CPU, at half the download; float16_float_io for phone GPUs"),
    "float16_float_io": Format("_float16_float_io.tflite", _FLOAT16_FLOAT_IO, 0.6, 0.99, 0.02,   "phone GPUs, in apps that give floats; half the download"),
    "dynamic":        Format("_dynamic.tflite",        _DYNAMIC,       0.36,  0.90,   0.25,   "any CPU, where no calibration images are at hand"),
    "int8":           Format("_int8.tflite",           _INT8,          0.36,  0.90,   0.25,   "phone CPUs, DSPs, NPUs, microcontrollers"),
    "int8_float_io":  Format("_int8_float_io.tflite",  _INT8_FLOAT_IO, 0.36,  0.90,   0.25,   "as int8, in apps that give and take floats"),
    "int8_cpu":       Format("_int8_cpu.tflite",       _INT8_CPU,      0.36,  0.90,   0.25,   "as int8 on CPUs alone, and faster: XNNPACK runs it from the pixels on"),
    "int8_edgetpu":   Format("_int8_edgetpu.tflite",   _INT8_EDGETPU,  0.36,  0.90,   0.25,   "Edge TPU, runtimes of before 2024: one scale in the last layer"),
    "int8_mixed":     Format("_int8_mixed.tflite",     _INT8_MIXED,    1.0,   0.90,   0.25,   "as int8, where int8 loses too much: the fewest blocks in float"),
    "int16x8":        Format("_int16x8.tflite",        _INT16X8,       0.36,  0.90,   0.25,   "SLOW, reference kernels on CPUs: NPUs with 16-bit activations"),
    "int4":           Format("_int4.tflite",           _INT4,          0.25,  0.70,   0.50,   "SLOW on CPUs, no XNNPACK: where the download counts alone"),
    # Fine-tuned on training images: other answers on purpose, so that top-1 is what counts.
    "int8_qat":       Format("_int8_qat.tflite",       _INT8_TUNED,    0.36,  0.85,   None,   "as int8, trained for it", "qat"),
    "pruned":         Format("_pruned.tflite",         _FLOAT32,       1.0,   0.80,   None,   "as float32; a smaller download where files are compressed", "pruned"),
    "pruned_int8":    Format("_pruned_int8.tflite",    _INT8_TUNED,    0.36,  0.80,   None,   "as int8; a smaller download where files are compressed", "pruned"),
    "pruned_2_of_4":  Format("_pruned_2_of_4.tflite",  _FLOAT32,       1.0,   0.80,   None,   "as float32; accelerators that skip 2 of 4 weights", "pruned_2_of_4"),
    "clustered":      Format("_clustered.tflite",      _FLOAT32,       1.0,   0.80,   None,   "as float32; a smaller download where files are compressed", "clustered"),
    "clustered_int8": Format("_clustered_int8.tflite", _INT8_TUNED,    0.36,  0.80,   None,   "as int8; a smaller download where files are compressed", "clustered"),
    "channel_pruned": Format("_channel_pruned.tflite", _FLOAT32,       1.0,   0.80,   None,   "as float32, faster and smaller on all of it", "channel_pruned"),
    "channel_pruned_int8": Format("_channel_pruned_int8.tflite", _INT8, 0.36, 0.80,   None,   "as int8, faster and smaller on all of it", "channel_pruned"),
}
# fmt: on
# Made where nothing is asked for; the second of a quantization-aware model, which rounds as its int8 file.
BASIC = ("saved_model", "float32", "float16", "dynamic", "int8")
QAT = ("saved_model", "int8", "int8_float_io")
