"""The table of formats: one row a format, with the promise its file is held to before it is written."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Format:
    """What a format is and what its file must keep.

    Attributes:
        suffix: what follows the model's name in the file's name.
        weights: how the weights are stored.
        activations: what the net computes with.
        min_agreement: smallest share of images whose best class is the Keras model's.
        max_difference: largest difference of any logit, as a share of the largest logit.
        suits: hardware that gains by it.
    """

    suffix: str
    weights: str
    activations: str
    min_agreement: float
    max_difference: float
    suits: str


# The promises are ours: about twice the worst that was seen on digits, CIFAR-10 and the ImageNet nets, where 1,000 classes
# lie close together (BUILD_NOTES.md, "CIFAR-10 in ten epochs" and "Weights").
# fmt: off
FORMATS = {
    #                      file                 weights    activations  agree   differ  suits
    "saved_model":  Format("_saved_model",      "float32", "float32",   0.999,  1e-4,   "servers: TensorFlow Serving, tf.data pipelines"),
    "float32":      Format("_float32.tflite",   "float32", "float32",   0.999,  1e-4,   "any CPU; the reference on the device"),
    "float16":      Format("_float16.tflite",   "float16", "float32",   0.99,   0.02,   "phone GPUs; half the download"),
    "dynamic":      Format("_dynamic.tflite",   "int8",    "float32",   0.90,   0.25,   "any CPU, where no calibration images are at hand"),
    "int8":         Format("_int8.tflite",      "int8",    "int8",      0.90,   0.25,   "phone CPUs, DSPs, NPUs, microcontrollers"),
}
# fmt: on
