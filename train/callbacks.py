"""Keras callbacks of a run: progress on the screen, checkpoint and history after each epoch."""

import math
import sys

import keras
from tqdm import tqdm

from train import run_folder


class Progress(keras.callbacks.Callback):
    """A bar with loss, accuracy, images/s and time left on a terminal; one line an epoch elsewhere."""

    def __init__(self, config, images_per_epoch):
        super().__init__()
        self.config = config
        self.images_per_epoch = images_per_epoch
        self.bar = None

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the epoch's bar."""
        self.bar = tqdm(
            total=self.images_per_epoch,
            desc=f"epoch {epoch + 1}/{self.config.epochs}",
            unit=" images",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

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


class Keeper(keras.callbacks.Callback):
    """Writes history.csv and a checkpoint after each epoch."""

    def __init__(self, config, variables, history):
        super().__init__()
        self.config = config
        self.variables = variables
        self.history = history

    def on_epoch_end(self, epoch, logs=None):
        """Keeps what the epoch brought, unless the loss is no number any more."""
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                f"The loss is not finite in epoch {epoch + 1}. Expected a run that converges. Received: "
                f"--learning_rate={self.config.learning_rate}. Lower it; checkpoints of the epochs before are kept in "
                f"{self.config.workdir}."
            )
        self.history.append(dict(logs))
        run_folder.save_checkpoint(self.config, self.variables, epoch + 1, self.history)
        run_folder.write_history(self.config, self.history)
