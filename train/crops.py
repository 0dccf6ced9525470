"""placeholder until the helper's"""

import math
import tensorflow as tf

RESIZED_DRAWS = 4
JITTERED_DRAWS = 3


def _resized_box(height, width, draws, area_range):
    area, ratio, top, left = tf.unstack(draws, axis=-1)
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = (area_range[0] + area * (area_range[1] - area_range[0])) * height * width
    ratio = tf.exp((2 * ratio - 1) * math.log(4 / 3))
    h = tf.clip_by_value(tf.round(tf.sqrt(area / ratio)), 1, height)
    w = tf.clip_by_value(tf.round(tf.sqrt(area * ratio)), 1, width)
    return tf.stack([tf.floor(top * (height - h + 1)), tf.floor(left * (width - w + 1)), h, w], axis=-1)


def _jittered_box(height, width, draws, size):
    scale, top, left = tf.unstack(draws, axis=-1)
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    shorter = 256 + tf.floor(scale * 225)
    side = tf.minimum(height, width) * tf.minimum(size / shorter, 1.0)
    return tf.stack([top * (height - side), left * (width - side), side, side], axis=-1)


BOXES = {
    "resized": lambda sides, draws, config, size: _resized_box(*sides, draws[:, :4], (config.min_area, 1.0)),
    "scale_jitter": lambda sides, draws, config, size: _jittered_box(*sides, draws[:, :3], size),
}


def _decode(encoded, box, shape):
    box = tf.cast(box, tf.int32)
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(encoded, box, shape[-1]),
        lambda: tf.slice(
            tf.io.decode_image(encoded, shape[-1], expand_animations=False),
            [box[0], box[1], 0],
            [box[2], box[3], shape[-1]],
        ),
    )
    return tf.ensure_shape(tf.cast(tf.round(tf.image.resize(image, shape[:2])), tf.uint8), shape)


def _size(encoded):
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(tf.io.decode_image(encoded, expand_animations=False))[:2],
    )


def random_resized_crop(encoded, draws, shape, area_range=(0.08, 1.0)):
    h, w = tf.unstack(_size(encoded))
    return _decode(encoded, _resized_box(h, w, draws, area_range), shape)


def scale_jittered_crop(encoded, draws, shape):
    h, w = tf.unstack(_size(encoded))
    return _decode(encoded, tf.round(_jittered_box(h, w, draws, shape[0])), shape)
