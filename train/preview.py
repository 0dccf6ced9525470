"""The first training images of a run as the net gets them: `--preview` draws them for a person to look at."""

import os

import tensorflow as tf

from train import input_pipeline, pictures, run_folder, strategies

IMAGES = 32
PREVIEW = os.path.join("plots", "preview.png")


def run(config):
    """Draws the first images of epochs 1 and 2 into `plots/preview.png` of the run folder.

    Args:
        config: `train.config.Config`.
    Raises:
        ValueError: as for a run.
    """
    strategies.check(config, num_replicas=1)
    source, _ = strategies.load_data(tf.distribute.get_strategy(), config)
    batches = [next(iter(input_pipeline.training_batches(source, config, epoch=epoch))) for epoch in (0, 1)]
    captioned = [row for batch in batches for row in _captioned(batch, source.titles, IMAGES // 2)]
    path = os.path.join(config.workdir, PREVIEW)
    heading = f"{config.data}, recipe {config.recipe}: the first images of two epochs"
    with run_folder.written_aside(path) as aside:
        pictures.draw_sheet(aside, captioned, heading, columns=8)
    print(f"Wrote {path}")


def _captioned(batch, titles, limit):
    """(image, caption) of the first images of a batch."""
    batch = {name: column[:limit].numpy() for name, column in batch.items()}
    for row, image in enumerate(batch["image"]):
        caption = pictures.short(titles[batch["label"][row]], 18)
        if "share" in batch and batch["share"][row] < 1:
            share = batch["share"][row]
            other = pictures.short(titles[batch["other_label"][row]], 18)
            caption = f"{share:.0%} {caption}\n{1 - share:.0%} {other}"
        yield image, caption
