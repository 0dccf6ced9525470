"""The training loop: one step by hand, one replica against two, every callback of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run

from train import config, data, loop, network, predictor, scoring


def make(**fields):
    options = config.make({"data": "digits", "model": "ResNet8", "batch_size": 64, **fields})
    source = data.load(options.data)
    model = network.build(options, source)
    return options, source, model, network.build_optimizer(options, model, loop.num_steps(source, options))


def train(options, source, model, optimizer, callbacks=()):
    loop.fit(tf.distribute.get_strategy(), model, optimizer, source, options, list(callbacks))


@pytest.fixture(scope="module")
def by_strategy(tmp_path_factory):
    """Variables, logs and totals after three steps, by (strategy, batch norm, steps per execution)."""
    folder = tmp_path_factory.mktemp("replicas")
    results = {}
    for case in (
        ("default", "local", 50),
        ("default", "local", 3),
        ("mirrored", "synchronized", 50),
        ("mirrored", "local", 50),
    ):
        run("tests/replicas.py", *case, folder / "all.npz")
        with np.load(folder / "all.npz") as stored:
            results[case] = dict(stored)
    return results


def difference(one, other, prefix):
    """Largest difference of any array, as a share of its own scale."""
    names = [name for name in one if name.startswith(prefix)]
    assert len(names) >= 4
    return max(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max() for name in names)


@pytest.mark.smoke
def test_one_and_two_replicas_train_the_same(by_strategy):
    one, two = by_strategy["default", "local", 50], by_strategy["mirrored", "synchronized", 50]
    assert two["replicas/stem_bn"].shape[0] == 2
    assert difference(one, two, "variables/") < 1e-10
    assert difference(one, two, "logs/") < 1e-10
    assert np.allclose(one["totals"], two["totals"], rtol=1e-10)


@pytest.mark.smoke
def test_local_batch_norm_on_two_replicas_is_another_computation(by_strategy):
    # So that the test above can fail: half the images a replica give other statistics.
    one, two = by_strategy["default", "local", 50], by_strategy["mirrored", "local", 50]
    assert difference(one, two, "variables/") > 1e-3


@pytest.mark.smoke
def test_steps_per_execution_changes_nothing(by_strategy):
    many, few = by_strategy["default", "local", 50], by_strategy["default", "local", 3]
    assert difference(many, few, "variables/") < 1e-10


@pytest.mark.smoke
def test_replicas_end_with_the_same_moving_statistics(by_strategy):
    for name in ("replicas/stem_bn", "replicas/stage3_block1_bn2"):
        first, second = by_strategy["mirrored", "local", 50][name]
        assert np.array_equal(first, second)
        assert np.any(first)


@pytest.mark.smoke
def test_evaluation_on_two_replicas_counts_every_image_once(by_strategy):
    for result in by_strategy.values():
        assert result["totals"][loop.TOTALS.index("count")] == 128  # in batches of 100 on two replicas


@pytest.mark.unit
def test_a_step_is_sgd_with_nesterov_momentum_and_coupled_l2():
    options, source, model, optimizer = make(epochs=1, warmup_epochs=0.0, schedule="constant", weight_decay=0.01)
    start = [variable.numpy() for variable in model.trainable_variables]
    batch = next(iter(data.training_batches(source, 64, seed=0, epoch=0, crop_padding=1)))
    with tf.GradientTape() as tape:
        losses = loop.cross_entropy(batch["label"], model(batch["image"], training=True), options.label_smoothing)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    steps = loop.make_train_steps(
        tf.distribute.get_strategy(), model, optimizer, weight_decay=0.01, label_smoothing=options.label_smoothing
    )
    totals = steps(iter(tf.data.Dataset.from_tensors(batch)), tf.constant(1))
    assert np.isclose(totals[0] / 64, loss, rtol=1e-5)
    for variable, before, gradient in zip(model.trainable_variables, start, gradients, strict=True):
        decayed = gradient + 0.01 * before if variable.name == "kernel" else gradient
        velocity = -options.learning_rate * decayed
        expected = before + options.momentum * velocity - options.learning_rate * decayed
        assert np.allclose(variable.numpy(), expected, atol=1e-6 + 1e-5 * np.abs(expected).max())


@pytest.mark.unit
def test_cross_entropy_is_kerass():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((8, 5)).astype("float32"), rng.integers(0, 5, 8)
    for smoothing in (0.0, 0.1):
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        ours = loop.cross_entropy(tf.constant(labels), tf.constant(logits), smoothing)
        assert np.allclose(ours, theirs(np.eye(5)[labels], logits), atol=1e-6)


@pytest.mark.unit
def test_schedules_rise_and_fall():
    def rates(schedule, steps, **fields):
        options = config.make({"schedule": schedule, "epochs": 8, "learning_rate": 1.0, **fields})
        schedule = loop.learning_rate_schedule(options, 100)
        return [float(schedule(step)) for step in steps]

    assert np.allclose(rates("cosine", [0, 100, 200, 500, 800], warmup_epochs=2.0), [0, 0.5, 1, 0.5, 0], atol=1e-6)
    assert np.allclose(rates("cosine", [0, 400, 800], warmup_epochs=0.0), [1, 0.5, 0], atol=1e-6)
    assert np.allclose(rates("steps", [0, 399, 401, 599, 601], warmup_epochs=0.0), [1, 1, 0.1, 0.1, 0.01])
    assert np.allclose(rates("steps", [5, 95, 150, 450], warmup_epochs=1.0), [0.1, 1.0, 1.0, 0.1])
    options = config.make({"schedule": "constant", "warmup_epochs": 0.0, "learning_rate": 0.3})
    assert loop.learning_rate_schedule(options, 100) == 0.3


@pytest.mark.smoke
def test_keras_callbacks_work_as_in_fit(tmp_path):
    options, source, model, optimizer = make(epochs=6, warmup_epochs=0.0, schedule="constant", learning_rate=0.01)
    calls = []

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            calls.append("begin")

        def on_train_batch_end(self, batch, logs=None):
            calls.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            calls.append(sorted(logs))

        def on_train_end(self, logs=None):
            calls.append("end")

    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 if epoch == 0 else 0.0)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss", save_best_only=True)
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1.0, patience=1, restore_best_weights=True)
    train(options, source, model, optimizer, [Recorder(), rate, best, stop])
    names = ["accuracy", "images_per_second", "learning_rate", "loss", "val_accuracy", "val_loss"]
    assert calls[:3] == ["begin", 19, names]
    assert calls.count(19) == 2  # EarlyStopping ended the run after the second epoch
    assert calls[-1] == "end"
    assert float(optimizer.learning_rate) == 0
    assert keras.saving.load_model(tmp_path / "best.keras").optimizer.iterations.numpy() > 0


@pytest.mark.smoke
def test_training_is_the_same_from_run_to_run():
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        options, source, model, optimizer = make(epochs=1, warmup_epochs=0.0)
        train(options, source, model, optimizer)
        results.append(model.get_weights())
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(*results, strict=True))


@pytest.mark.contract
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label_smoothing", 0.3),
        ("weight_decay", 0.1),
        ("crop_padding", 2),
        ("flip", True),
        ("momentum", 0.5),
        ("nesterov", False),
        ("learning_rate", 0.05),
        ("seed", 1),
    ],
)
def test_fit_hears_every_field_of_a_recipe(field, value, first_steps):
    """Two steps of one epoch end elsewhere when the field is another."""
    changed = _two_steps(**{field: value})
    assert max(np.abs(one - other).max() for one, other in zip(changed, first_steps, strict=True)) > 1e-5


@pytest.fixture(scope="module")
def first_steps():
    weights = _two_steps()
    again = _two_steps()  # so that the test above can fail
    assert max(np.abs(one - other).max() for one, other in zip(weights, again, strict=True)) < 1e-6
    return weights


def _two_steps(**fields):
    keras.utils.set_random_seed(0)
    base = {"epochs": 1, "warmup_epochs": 0.0, "schedule": "constant", "batch_size": 600, "weight_decay": 0.0}
    options, source, model, optimizer = make(**base | {"label_smoothing": 0.0, "crop_padding": 0} | fields)
    train(options, source, model, optimizer)
    return model.get_weights()


@pytest.mark.unit
def test_images_that_fill_a_batch_count_neither_as_hits_nor_as_loss():
    _, source, model, _ = make()
    head = model.get_layer("predictions")
    head.bias.assign(10.0 * np.eye(10)[0])  # whatever stands in a padded image is class 0, the label it carries
    batches = data.evaluation_batches(source, "validation", 100)
    totals = loop.make_test_steps(tf.distribute.get_strategy(), model)(iter(batches), tf.constant(2))
    images, labels, _ = data.arrays(source, "validation")
    expected = scoring.score(predictor.from_keras(model).predict(images), labels)
    found = loop.means(totals)
    assert found["accuracy"] == pytest.approx(expected.top1, abs=1e-6)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-5)
