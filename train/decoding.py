"""Encoded images to pixels of one size, as `keras_resnet.preprocessor` does."""

import tensorflow as tf


def decode_whole(encoded, channels):
    """Decodes a JPEG, PNG, BMP, WebP or GIF (its first frame): scalar string tensor -> uint8 (h, w, channels)."""
    # TensorFlow's own choice for JPEG is a faster transform, up to ten levels off what Pillow decodes.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    )
    image.set_shape((None, None, channels))
    return image


def fitted(image, shape, preprocessing):
    """Resizes the shorter side and crops the centre where the image has another size: uint8 `shape`.

    As `keras_resnet.preprocessor` does with Pillow, to one level in 255.
    """
    if image.shape.is_fully_defined() and tuple(image.shape) == tuple(shape):
        return image
    fits = tf.reduce_all(tf.shape(image)[:2] == shape[:2])
    shorter = round(shape[0] * preprocessing.resize / preprocessing.crop)

    def resize():
        size = tf.shape(image)[:2]
        sides = size * shorter // tf.reduce_min(size)
        resized = image
        for step in ((size[0], sides[1]), sides):  # rows first and whole pixels in between, as Pillow does
            resized = tf.image.resize(resized, step, preprocessing.interpolation, antialias=True)
            resized = tf.clip_by_value(tf.round(resized), 0, 255)
        top, left = tf.unstack(tf.cast(tf.round((sides - shape[:2]) / 2), tf.int32))
        return tf.cast(resized[top : top + shape[0], left : left + shape[1]], tf.uint8)

    return tf.ensure_shape(tf.cond(fits, lambda: image, resize), shape)
