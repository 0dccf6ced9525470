"""A network as the operators of a `.tflite` file: what is written, quantized and examined."""

import dataclasses

import numpy as np


@dataclasses.dataclass(eq=False)
class Tensor:
    """An activation, or a constant.

    Attributes:
        name: unique in its graph; of an activation the name of the Keras layer that made it.
        shape: tuple of int, with the batch size.
        dtype: "float32", "float16", "uint8", "int8", "int16", "int32", "int64" or "int4".
        data: array of a constant; None of an activation. int4 is kept as int8 and packed when written.
        scale: None, or float array: one number, or one a channel; value = scale * (stored - zero_point).
        zero_point: int.
        axis: axis of the channels that `scale` counts.
    """

    name: str
    shape: tuple
    dtype: str = "float32"
    data: np.ndarray | None = None
    scale: np.ndarray | None = None
    zero_point: int = 0
    axis: int = 0


@dataclasses.dataclass(eq=False)
class Operator:
    """One operator with one output.

    Attributes:
        kind: its name in LiteRT's schema, such as "CONV_2D".
        inputs: list of `Tensor`, in LiteRT's order.
        output: `Tensor`.
        options: dict of its fields in LiteRT's schema.
    """

    kind: str
    inputs: list
    output: Tensor
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def activation(self):
        """The first input: every operator here has one leading activation."""
        return self.inputs[0]


@dataclasses.dataclass(eq=False)
class Graph:
    """A network with one input and one output.

    Attributes:
        name: of the model.
        image: input `Tensor` (n, h, w, c).
        scores: output `Tensor` (n, classes).
        operators: list of `Operator`, in the order of execution.
        ranges: of a quantization-aware model: dict from an activation's name to its (smallest, largest) value.
    """

    name: str
    image: Tensor
    scores: Tensor
    operators: list = dataclasses.field(default_factory=list)
    ranges: dict = dataclasses.field(default_factory=dict)

    def activations(self):
        """Outputs of all operators, in the order of execution."""
        return [operator.output for operator in self.operators]

    def copy(self):
        """The same operators on new tensors; the constants' arrays are shared."""
        new = {}

        def copied(tensor):
            return new.setdefault(tensor, dataclasses.replace(tensor))

        return Graph(
            self.name,
            copied(self.image),
            copied(self.scores),
            [
                Operator(one.kind, [*map(copied, one.inputs)], copied(one.output), dict(one.options))
                for one in self.operators
            ],
            self.ranges,
        )

    def for_batch(self, number):
        """The same net for that many images a call."""
        new = self.copy()
        outputs = (one.output for one in new.operators if one.activation.data is None)  # others are weights
        for tensor in (new.image, *outputs):
            tensor.shape = (number, *tensor.shape[1:])
        for operator in new.operators:
            if operator.kind == "RESHAPE":
                shape = operator.output.shape
                operator.inputs[1] = constant(operator.inputs[1].name, shape, "int32")
                operator.options["newShape"] = list(shape)
        return new


def constant(name, values, dtype=None):
    """`Tensor` that holds an array."""
    array = np.ascontiguousarray(values, dtype)
    return Tensor(name, array.shape, array.dtype.name, array)
