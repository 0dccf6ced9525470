"""Keras callbacks of a run: what is seen of it while it goes."""

import importlib.util
import os
import sys

import keras
from tqdm import tqdm


class ProgressBar(keras.callbacks.Callback):
    """A bar with loss, accuracy, images/s and time left on a terminal; one line an epoch elsewhere."""

    def __init__(self, config, images_per_epoch, first_step=0):
        super().__init__()
        self.config = config
        self.images_per_epoch = images_per_epoch
        self.initial = first_step * config.batch_size
        self.bar = None

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the epoch's bar."""
        self.bar = tqdm(
            total=self.images_per_epoch,
            initial=self.initial,
            desc=f"epoch {epoch + 1}/{self.config.epochs}",
            unit=" images",
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        self.initial = 0

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar to the step just done."""
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)
        self.bar.update((batch + 1) * self.config.batch_size - self.bar.n)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's line."""
        self.bar.close()
        print(
            f"epoch {epoch + 1:>3}/{self.config.epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}  "
            f"val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.2%}  "
            f"{logs['images_per_second']:,.0f} images/s",
            flush=True,
        )


class Summaries(keras.callbacks.Callback):
    """The epochs' figures for TensorBoard, in `tensorboard/` of the run folder."""

    def __init__(self, config):
        super().__init__()
        self.folder = os.path.join(config.workdir, "tensorboard")
        self.writer = None

    @staticmethod
    def is_possible():
        """Whether TensorBoard is installed, which TensorFlow's summaries need."""
        return importlib.util.find_spec("tensorboard") is not None

    def on_epoch_end(self, epoch, logs=None):
        """Writes one point a figure."""
        import tensorflow as tf

        self.writer = self.writer or tf.summary.create_file_writer(self.folder)
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
        self.writer.flush()
