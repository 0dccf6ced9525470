"""The input pipeline: augmented batches, crops of photographs, memory."""

import dataclasses
import glob
import io
import os
import tempfile
import time

import numpy as np
import PIL.Image
import tensorflow as tf
from benches.rounds import DATA, ROUNDS, judged, report, resident_mb, timed

from train import config, crops, data, input_pipeline


def images():
    """Augmented CIFAR-sized batches a second, against tf.image one by one."""
    options = config.make({"data": "synthetic", "recipe": "cifar_fast"})
    source = data.load("synthetic")
    train = source.splits["train"]
    source.splits["train"] = dataclasses.replace(train, positions=np.tile(train.positions, 100))
    read, positions = train.open(), source.splits["train"].positions

    def one_by_one(position):
        image = tf.image.resize_with_crop_or_pad(read(position)["image"], 40, 40)
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (32, 32, 3)))

    def run_ours():
        sum(1 for _ in input_pipeline.training_batches(source, options, epoch=0))

    def run_theirs():
        elements = tf.data.Dataset.from_tensor_slices(positions).shuffle(len(positions))
        sum(1 for _ in elements.map(one_by_one, tf.data.AUTOTUNE).batch(128, drop_remainder=True).prefetch(1))

    run_ours(), run_theirs()
    rounds = [(timed(run_ours), timed(run_theirs)) for _ in range(ROUNDS)]
    count = len(positions)
    report(f"{count:,} images, crop and flip, against tf.image one by one", *zip(*rounds, strict=True), limit=0.5)
    rates = [count / np.median(seconds) for seconds in zip(*rounds, strict=True)]
    print(f"  {rates[0]:,.0f} against {rates[1]:,.0f} images/s", flush=True)


def input_memory():
    """Memory of the pipeline over 10,000 photographs, augmented in every way."""
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/train/thing")
        for number, content in enumerate(photographs()):
            with open(f"{folder}/train/thing/{number}.jpg", "wb") as file:
                file.write(content)
        options = config.make({"data": f"folder:{folder}", "recipe": "strikes_back_a1", "batch_size": 50})
        source = data.load_for_run(options)
        source.splits["train"] = dataclasses.replace(
            source.splits["train"], positions=np.tile(source.splits["train"].positions, 10_000 // 180 + 1)[:10_000]
        )
        sizes = []
        for number, _ in enumerate(input_pipeline.training_batches(source, options, epoch=0)):
            if number % 20 == 19:
                sizes.append(resident_mb())
    grown = sizes[-1] - sizes[1]
    print(
        f"memory of the pipeline after 2,000 and 10,000 photographs: {sizes[1]:.0f} MB, {grown:+.0f} MB, limit 50  "
        f"{judged(grown <= 50)}",
        flush=True,
    )


def photographs():
    """200 JPEG files with a longer side of 500 pixels, quality 90, of real photographs: list of bytes."""
    files = sorted(glob.glob(os.path.join(DATA, "imagenet_sample/validation/*/*")))
    if files:
        pictures = [PIL.Image.open(file).convert("RGB") for file in files]
    else:
        from sklearn.datasets import load_sample_images  # a second of import that only this bench needs

        pictures = [PIL.Image.fromarray(pixels) for pixels in load_sample_images().images]
    encoded = []
    for index in range(200):
        picture, stream = pictures[index % len(pictures)], io.BytesIO()
        scale = 500 / max(picture.size)
        picture.resize([round(side * scale) for side in picture.size]).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


def usual_crop(encoded):
    """One image as in TensorFlow's tutorials: decoded whole, cropped, resized and normalised in float32."""
    image = tf.io.decode_jpeg(encoded, channels=3)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros((0, 0, 4)),
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    image = tf.ensure_shape(tf.image.resize(tf.slice(image, begin, size), (224, 224)), (224, 224, 3))
    return (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


def training_crops():
    """Crops of 224 x 224 from JPEG photographs in memory, batch 64, in processor seconds, which load disturbs less.

    The aim was 0.5 and is out of reach of TensorFlow's operations. Where the random resized crop spends its time (perf,
    2026-11-21): 45 % decoding the Huffman code down to the crop's last row, 18 % `ResizeBilinear`, 10 % the rest of
    libjpeg, 3 % copying; what is left goes to some eighty small operations, threads and tf.data. The first two alone
    are 0.41 of the usual pipeline.
    """
    encoded = photographs()
    rng = np.random.default_rng(0)
    elements = tf.data.Dataset.from_tensor_slices(encoded)
    draws = {
        crop: rng.random((len(encoded), number), "float32")
        for crop, number in (
            (crops.random_resized_crop, crops.RANDOM_RESIZED_DRAWS),
            (crops.scale_jittered_crop, crops.SCALE_JITTERED_DRAWS),
        )
    }

    def ours(crop):
        pairs = tf.data.Dataset.zip((elements, tf.data.Dataset.from_tensor_slices(draws[crop])))
        return pairs.map(lambda file, row: crop(file, row, 224), tf.data.AUTOTUNE)

    pipelines = {
        "usual": elements.map(usual_crop, tf.data.AUTOTUNE),
        "random resized": ours(crops.random_resized_crop),
        "scale jittered": ours(crops.scale_jittered_crop),
        "decoding alone": elements.map(lambda file: tf.shape(tf.io.decode_jpeg(file)), tf.data.AUTOTUNE),
    }
    pipelines = {name: rows.batch(64).prefetch(tf.data.AUTOTUNE) for name, rows in pipelines.items()}

    def processor_seconds(name):
        start = time.process_time()
        sum(1 for _ in pipelines[name])
        return time.process_time() - start

    def pillow_seconds():
        start = time.process_time()
        for file in encoded:
            PIL.Image.open(io.BytesIO(file)).load()
        return time.process_time() - start

    for name in pipelines:
        processor_seconds(name)
    rounds = [[*map(processor_seconds, pipelines), pillow_seconds()] for _ in range(ROUNDS)]
    seconds = dict(zip([*pipelines, "Pillow decoding alone"], np.transpose(rounds), strict=True))
    for name in ("random resized", "scale jittered"):
        report(f"200 {name} crops, processor time, against the usual", seconds[name], seconds["usual"], limit=0.7)
    for name, values in seconds.items():
        share = np.median(seconds["decoding alone"] / values)
        print(f"  {name:<24} {len(encoded) / np.median(values):6.0f} images/s a core, {share:.0%} of decoding alone")
