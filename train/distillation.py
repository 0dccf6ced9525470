"""Fine-tunes a net towards the answers of the one that it was made from (Hinton et al. 2015, arXiv 1503.02531)."""

import tensorflow as tf

from train import input_pipeline, loop, network, optimizers, steps


def fine_tune(student, teacher, source, config):
    """Trains on one device, by the loop of all runs.

    Args:
        student: `keras.Model` of stock layers in float32, from pixels 0 to 255 (n, h, w, c) to logits (n, classes).
        teacher: `keras.Model` likewise, whose softmax is the target.
        source: `train.data.Source` with training and validation images. These are scored after each epoch, for the
            history alone: nothing is chosen by them.
        config: `train.config.Config`; the recipe's mixing of images leaves labels out of the loss as well.
    Returns:
        `keras.Model` like the student, and a list of dicts, one an epoch: loss, accuracy, val_loss, val_accuracy,
        learning_rate.
    Raises:
        ValueError: if the loss is not finite any more, there are fewer images than one batch, or no
            validation images.
    """
    if "validation" not in source.splits:
        raise ValueError(
            "Fine-tuning scores the net on validation images after each epoch. Expected a source with these, as "
            f"train.data.load holds them out. Received: {source.name}, with {', '.join(source.splits)} alone."
        )
    model = network.for_training(student, config)
    optimizer = optimizers.build(config, model, input_pipeline.num_training_batches(source, config))
    state = steps.make_state(config, model, optimizer, teacher)
    progress = loop.fit(tf.distribute.get_strategy(), state, source, config)
    return network.deployable(model, student.inputs[0].shape[1:], loop.final_weights(state)), [*progress.history]
