"""The training loop: one step by hand, one replica against two, every callback of Keras."""

import concurrent.futures
import json

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import needs_torch, run

import keras_resnet
from train import (
    config,
    data,
    input_pipeline,
    loop,
    losses,
    network,
    normalization,
    optimizers,
    predictor,
    scoring,
    steps,
    verify,
)

DEFAULT = tf.distribute.get_strategy()


def make(**fields):
    options = config.make({"data": "digits", "model": "ResNet8", "batch_size": 64, **fields})
    source = data.load(options.data)
    return options, source, loop.build_state(DEFAULT, source, options)


def train(options, source, state, callbacks=()):
    return loop.fit(DEFAULT, state, source, options, list(callbacks))


# What a strategy must not change: fields of a configuration, by name. Three steps in float64 (tests/replicas.py).
OPTIONS = {
    "momentum": {},
    "nesterov, label smoothing": {"nesterov": True, "label_smoothing": 0.2},
    "decoupled decay": {"decoupled_decay": True, "weight_decay": 0.05},
    "decay of all, filled last batch": {"decay_all": True, "weight_decay": 0.05, "fill_last_batch": True},
    "clipping": {"clip_norm": 0.05},
    "accumulation, clipping, average": {"accumulation": 2, "clip_norm": 0.05, "ema": 0.9},
    "binary": {"loss": "bce", "mixup": 0.2, "cutmix": 1.0, "auto_augment": "trivial", "erasing": 0.5, "repeats": 2},
    "adamw": {"optimizer": "adamw", "decoupled_decay": True, "learning_rate": 0.001},
    "lamb": {"optimizer": "lamb", "decoupled_decay": True, "learning_rate": 0.01},
    "muon": {"optimizer": "muon", "learning_rate": 0.001},
    "quantization-aware": {"qat": True, "weights": "WEIGHTS", "learning_rate": 0.001, "epochs": 3},  # ranges still move
}
# How far strategies may be apart, as a share of a variable's largest value. Far below the promise of 1e-5; but
# quantization-aware nets round a tie up or down as sums come out, and one tie moved the momentum by 6e-3 and, at ten
# times this rate, a range by 1.6e-4. With ranges of each replica's own they would be 1.7e-3 apart.
LIMITS = dict.fromkeys(("weights", "statistics", "optimizer", "metrics", "average"), 1e-9)
QAT_LIMITS = {"weights": 1e-3, "statistics": 3e-4, "optimizer": 0.1, "metrics": 0.1}


@pytest.fixture(scope="module")
def by_strategy(tmp_path_factory):
    """Arrays of `verify.few_steps` by strategy and option: one process a strategy, two for two workers."""
    from train import workers

    folder = tmp_path_factory.mktemp("replicas")
    golden.build("ResNet8").save(folder / "weights.keras")
    options = json.dumps(OPTIONS).replace("WEIGHTS", str(folder / "weights.keras"))
    (folder / "options.json").write_text(options)
    arguments = {name: ["tests/replicas.py", name, folder / "options.json", folder / name] for name in STRATEGIES}
    with concurrent.futures.ThreadPoolExecutor() as pool:  # tracing keeps one core busy, and there are two
        runs = [pool.submit(run, *arguments[name]) for name in ("default", "mirrored")]
        assert workers.run(2, [*map(str, arguments["multi_worker"])]) == 0
        for one in runs:
            one.result()
    results = {}
    for path in folder.glob("*/*.npz"):
        with np.load(path) as stored:
            results[path.parent.name, path.stem] = dict(stored)
    return results


STRATEGIES = ("default", "mirrored", "multi_worker")


@pytest.mark.smoke
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_two_replicas_and_two_workers_train_as_one(strategy, option, by_strategy):
    one, other = by_strategy["default", option], by_strategy[strategy, option]
    assert one.keys() == other.keys()
    worst = verify.differences(one, other)
    assert {"weights", "statistics", "optimizer", "metrics"} <= worst.keys()
    limits = QAT_LIMITS if "qat" in OPTIONS[option] else LIMITS
    assert all(worst[kind] < limits[kind] for kind in worst), worst


def weights(arrays):
    return {name: value for name, value in arrays.items() if name.startswith("weights/")}


@pytest.mark.smoke
@pytest.mark.parametrize("option", [option for option in [*OPTIONS][1:] if "qat" not in OPTIONS[option]])
def test_every_option_is_another_computation(option, by_strategy):
    """So that the test above can fail for each of them."""
    one, other = by_strategy["default", "momentum"], by_strategy["default", option]
    assert verify.differences(weights(one), other)["weights"] > 1e-4
    has_averages = any(name.startswith("average/") for name in other)
    assert has_averages == ("average" in option)


@pytest.mark.smoke
def test_local_batch_norm_on_two_replicas_is_another_computation(by_strategy):
    # So that the equality above can fail: half the images a replica give other statistics.
    one, two = by_strategy["default", "momentum"], by_strategy["mirrored", "local"]
    assert verify.differences(weights(one), two)["weights"] > 1e-3


@pytest.mark.smoke
def test_replicas_end_with_the_same_weights_statistics_and_averages(by_strategy):
    replicas = by_strategy["mirrored", "replicas"]
    assert len(replicas) > 100
    for name, (first, second) in replicas.items():
        assert np.array_equal(first, second), name


@pytest.mark.smoke
def test_replicas_drop_other_units(by_strategy):
    first, second = by_strategy["mirrored", "dropout"]["outputs"]
    assert 0.4 < np.mean(first == 0) < 0.6
    assert 0.4 < np.mean((first == 0) == (second == 0)) < 0.6


@pytest.mark.unit
def test_a_run_begins_by_varying_dropout(monkeypatch):
    options, source, state = make(epochs=1, warmup_epochs=0.0)
    called = []
    monkeypatch.setattr(loop.replicas, "vary_dropout", lambda *arguments: called.append(arguments))
    loop.fit(DEFAULT, state, source, options, progress=loop.Progress(epoch=1))
    assert called == [(DEFAULT, state.model)]


@pytest.mark.smoke
def test_evaluation_on_two_replicas_counts_every_image_once(by_strategy):
    for strategy in STRATEGIES:
        totals = by_strategy[strategy, "test"]["totals"]
        assert totals[steps.TOTALS.index("count")] == 128  # in batches of 100


@pytest.mark.unit
def test_a_step_is_sgd_with_nesterov_momentum_and_coupled_l2():
    options, source, state = make(
        epochs=1, warmup_epochs=0.0, schedule="constant", weight_decay=0.01, label_smoothing=0.1
    )
    model = state.model
    start = [variable.numpy() for variable in model.trainable_variables]
    batch = next(iter(input_pipeline.training_batches(source, options, epoch=0)))
    with tf.GradientTape() as tape:
        logits = model(batch["image"], training=True)
        loss = tf.reduce_mean(losses.cross_entropy(losses.one_hot(batch, logits), logits, options.label_smoothing))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    train_steps = steps.make_train_steps(DEFAULT, state, options)
    totals, first_bad = train_steps(iter(tf.data.Dataset.from_tensors(batch)), tf.constant(1), tf.zeros(3))
    assert np.isclose(totals[0] / 64, loss, rtol=1e-5)
    assert first_bad == -1
    for variable, before, gradient in zip(model.trainable_variables, start, gradients, strict=True):
        decayed = gradient + 0.01 * before if variable.name == "kernel" else gradient
        velocity = -options.learning_rate * decayed
        expected = before + options.momentum * velocity - options.learning_rate * decayed
        assert np.allclose(variable.numpy(), expected, atol=1e-6 + 1e-5 * np.abs(expected).max())


@needs_torch
@pytest.mark.contract
def test_steps_are_torchs(tmp_path):
    """From the same weights and batches; what ReLUs near zero make of float32's last bits: 5e-6 and 0.014."""
    fields = {"learning_rate": 0.01, "schedule": "constant", "weight_decay": 0.05, "decay_all": True}
    options = config.make({"model": "ResNet20", "data": "digits", "recipe": "paper_cifar", "batch_size": 32} | fields)
    stock = keras_resnet.build("ResNet20", weights=None, input_shape=(32, 32, 3), classifier_activation=None)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(3, 32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, (3, 32))
    start, numbers = stock.get_weights(), [str(number) for number in range(len(stock.weights))]
    given = {"rate": 0.01, "momentum": 0.9, "decay": 0.05, **dict(zip(numbers, start, strict=True))}
    np.savez(tmp_path / "given.npz", images=images, labels=labels, **given)
    run("tests/torch_training.py", tmp_path / "given.npz", tmp_path / "found.npz")
    theirs = np.load(tmp_path / "found.npz")

    model = network.for_training(stock, options)
    state = steps.make_state(options, model, optimizers.build(options, model, len(images)))
    train_steps = steps.make_train_steps(DEFAULT, state, options)
    batches = iter(tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}))
    totals = [train_steps(batches, tf.constant(1), tf.zeros(3))[0] for _ in images]
    assert np.allclose([total[0] / 32 for total in totals], theirs["losses"], rtol=1e-4)
    for number, before, after in zip(numbers, start, model.get_weights(), strict=True):
        moves = theirs[number] - before
        assert np.abs(after - before - moves).max() < 0.03 * np.abs(moves).max(), number


def one_step(batch, num_steps=1, share=input_pipeline.WHOLE, scale=None, **fields):
    """State after steps from seed 0, and their totals; on one batch again and again, or an epoch's own."""
    keras.utils.set_random_seed(0)
    options, source, state = make(**{"epochs": 1, "warmup_epochs": 0.0, "schedule": "constant"} | fields)
    if scale:
        state.scaling[0].assign(scale)
    batches = input_pipeline.training_batches(source, options, epoch=0, share=share)
    if batch:
        batches = tf.data.Dataset.from_tensors(batch).repeat()
    totals, _ = steps.make_train_steps(DEFAULT, state, options)(iter(batches), tf.constant(num_steps), tf.zeros(3))
    return state, totals


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True))


@pytest.mark.smoke
def test_parts_that_are_accumulated_make_the_same_steps():
    """Three steps, so that sums that were not emptied would show; statistics stay, as they would differ by part."""
    whole, _ = one_step(None, 3, freeze_backbone=True)
    parts, _ = one_step(None, 3, input_pipeline.Share(accumulation=2), freeze_backbone=True, accumulation=2)
    assert largest_difference(whole, parts) < 5e-6  # 4.8e-7, rounding alone


@pytest.mark.smoke
def test_a_step_of_adamw_is_kerass():
    fields = {"optimizer": "adamw", "learning_rate": 0.01, "decoupled_decay": True, "weight_decay": 0.5}
    options, source, _ = make(**fields, label_smoothing=0.0)
    batch = next(iter(input_pipeline.training_batches(source, options, epoch=0)))
    ours, _ = one_step(batch, **fields, label_smoothing=0.0)
    keras.utils.set_random_seed(0)
    _, _, theirs = make(**fields)
    variables = theirs.model.trainable_variables
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([variable for variable in variables if variable.name != "kernel"])
    with tf.GradientTape() as tape:
        logits = theirs.model(batch["image"], training=True)
        loss = tf.reduce_mean(losses.cross_entropy(losses.one_hot(batch, logits), logits))
    optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
    # Adam's first step is rate x sign(gradient): where the gradient is rounding alone, the sign is too.
    found = [np.abs(a - np.array(b)) for a, b in zip(ours.model.get_weights(), theirs.model.get_weights(), strict=True)]
    assert np.mean(np.concatenate([each.ravel() for each in found]) < 1e-5) > 0.999


@pytest.mark.unit
def test_mixed_targets_are_smoothed():
    options, source, _ = make(mixup=0.8, label_smoothing=0.1)
    batch = next(iter(input_pipeline.training_batches(source, options, epoch=0)))
    keras.utils.set_random_seed(0)
    _, _, state = make()
    logits = state.model(batch["image"], training=True)
    _, totals = one_step(batch, mixup=0.8, label_smoothing=0.1)
    expected = tf.reduce_sum(losses.cross_entropy(losses.one_hot(batch, logits), logits, 0.1))
    assert float(totals[0]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.smoke
def test_clipping_counts_what_is_left_when_the_loss_scale_is_undone():
    fields = {"mixed_precision": "float16", "clip_norm": 0.1, "learning_rate": 1.0, "weight_decay": 0.0}
    start, one, other = (
        np.concatenate([np.ravel(variable) for variable in state.model.trainable_variables])
        for state, _ in (one_step(None, steps, scale=scale, **fields) for steps, scale in ((0, 1), (1, 256), (1, 1024)))
    )
    assert np.linalg.norm(one - start) == pytest.approx(0.19, rel=0.01)  # the norm and 0.9 of it: Nesterov's momentum
    assert np.linalg.norm(one - other) < 0.01


@pytest.mark.unit
def test_cross_entropy_is_kerass():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((8, 5)).astype("float32"), rng.integers(0, 5, 8)
    for smoothing in (0.0, 0.1):
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        ours = losses.cross_entropy(tf.constant(np.eye(5)[labels], tf.float32), tf.constant(logits), smoothing)
        assert np.allclose(ours, theirs(np.eye(5)[labels], logits), atol=1e-6)


@pytest.mark.unit
def test_schedules_rise_and_fall():
    def rates(schedule, steps, **fields):
        options = config.make({"schedule": schedule, "epochs": 8, "learning_rate": 1.0, **fields})
        schedule = optimizers.schedule(options, 100)
        return [float(schedule(step)) for step in steps]

    assert np.allclose(rates("cosine", [0, 100, 200, 500, 800], warmup_epochs=2.0), [0, 0.5, 1, 0.5, 0], atol=1e-6)
    assert np.allclose(rates("cosine", [0, 400, 800], warmup_epochs=0.0), [1, 0.5, 0], atol=1e-6)
    falls = rates("steps", [0, 399, 400, 401, 599, 600, 601], warmup_epochs=0.0)
    assert np.allclose(falls, [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert np.allclose(rates("steps", [0, 9, 10, 89, 90, 150, 450], warmup_epochs=1.0), [0.1, 0.1, 0.2, 0.9, 1, 1, 0.1])
    assert np.allclose(rates("constant", [0, 1, 2], warmup_epochs=0.02), [0.1, 0.6, 1.0])
    assert np.allclose(rates("steps", [0, 399, 400], warmup_epochs=4.0, warmup_rate=0.5), [0.5, 0.5, 0.1])
    options = config.make({"schedule": "constant", "warmup_epochs": 0.0, "learning_rate": 0.3})
    assert optimizers.schedule(options, 100) == 0.3


@pytest.mark.unit
@pytest.mark.parametrize(("schedule", "warmup_epochs"), [("cosine", 0.99), ("constant", 0.99), ("steps", 0.5)])
def test_a_warm_up_that_rounds_to_too_many_steps_is_refused(schedule, warmup_epochs):
    options = config.make({"schedule": schedule, "epochs": 1, "warmup_epochs": warmup_epochs})
    with pytest.raises(ValueError, match=r"Expected a warm-up of at most \d of the run's 3 steps"):
        optimizers.schedule(options, 3)


@pytest.mark.unit
def test_rates_that_are_told_are_those_of_the_step():
    options, source, state = make(epochs=2, warmup_epochs=1.0)
    run, callbacks = loop._Run(DEFAULT, state, source, options), keras.callbacks.CallbackList([])
    run.score_split = dict
    state.optimizer.iterations.assign(run.steps_per_epoch // 2)
    _, row = run.score(loop.Progress(step=10), callbacks)
    assert row["learning_rate"] == pytest.approx(options.learning_rate * 9 / 20)  # the last step's, not the next one's
    with pytest.raises(ValueError, match=r"in step 14 of epoch 1.*learning rate 0.065, at most 0.1"):
        run._check_finite(loop.Progress(step=10), first_bad=3, iterations=10, keeper=None)


@pytest.mark.smoke
def test_keras_callbacks_work_as_in_fit(tmp_path):
    options, source, state = make(epochs=6, warmup_epochs=0.0, schedule="constant", learning_rate=0.01)
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
    train(options, source, state, [Recorder(), rate, best, stop])
    names = ["accuracy", "images_per_second", "learning_rate", "loss", "val_accuracy", "val_loss"]
    assert calls[:4] == ["begin", 9, 19, names]
    assert calls.count(19) == 2  # EarlyStopping ended the run after the second epoch
    assert calls[-1] == "end"
    assert float(state.optimizer.learning_rate) == 0
    assert keras.saving.load_model(tmp_path / "best.keras").optimizer.iterations.numpy() > 0


@pytest.mark.smoke
def test_training_is_the_same_from_run_to_run():
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        options, source, state = make(epochs=1, warmup_epochs=0.0)
        train(options, source, state)
        results.append(state.model.get_weights())
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
    options, source, state = make(**base | {"label_smoothing": 0.0, "crop_padding": 0} | fields)
    train(options, source, state)
    return state.model.get_weights()


@pytest.mark.unit
def test_images_that_fill_a_batch_count_neither_as_hits_nor_as_loss():
    _, source, state = make()
    model = state.model
    head = model.get_layer("predictions")
    head.bias.assign(10.0 * np.eye(10)[0])  # whatever stands in a padded image is class 0, the label it carries
    batches = input_pipeline.evaluation_batches(source, "validation", 100)
    totals = steps.make_test_steps(DEFAULT, model)(iter(batches), tf.constant(2))
    images, labels, _ = input_pipeline.arrays(source, "validation")
    expected = scoring.score(predictor.from_keras(model).predict(images), labels)
    found = loop.means(totals)
    assert found["accuracy"] == pytest.approx(expected.top1, abs=1e-6)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.unit
def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved():
    options, source, state = make(epochs=1, warmup_epochs=0.0, mixed_precision="float16", ema=0.05)
    batch = next(iter(input_pipeline.training_batches(source, options, epoch=0)))
    train_steps = steps.make_train_steps(DEFAULT, state, options)

    def step(scale):
        state.scaling[0].assign(scale)
        kept = [*state.model.trainable_variables, *state.averages[: len(state.model.trainable_variables)]]
        before = [np.array(value) for value in kept]
        totals, first_bad = train_steps(iter(tf.data.Dataset.from_tensors(batch)), tf.constant(1), tf.zeros(3))
        assert np.isfinite(totals[0])
        assert first_bad == -1  # it is not the loss that overflows
        same = {np.array_equal(*pair) for pair in zip(before, kept, strict=True)}
        assert len(same) == 1  # weights and averages stay together
        return same.pop()

    assert step(2.0**60)
    assert (float(state.scaling[0]), int(state.optimizer.iterations)) == (2.0**59, 0)
    assert not step(1024.0)
    assert (float(state.scaling[0]), float(state.scaling[1]), int(state.optimizer.iterations)) == (1024.0, 1.0, 1)
    state.scaling[1].assign(steps.STEPS_TO_DOUBLE - 1)
    assert not step(1024.0)
    assert (float(state.scaling[0]), float(state.scaling[1])) == (2048.0, 0.0)


@pytest.mark.unit
def test_the_first_step_without_a_finite_loss_is_told():
    options, source, state = make(epochs=1, warmup_epochs=0.0)
    batches = input_pipeline.training_batches(source, options, epoch=0)
    iterator, train_steps = iter(batches), steps.make_train_steps(DEFAULT, state, options)
    totals, first_bad = train_steps(iterator, tf.constant(3), tf.zeros(3))
    assert first_bad == -1
    state.model.get_layer("predictions").bias.assign(np.full(10, np.inf))
    assert train_steps(iterator, tf.constant(3), totals)[1] == 0


@pytest.mark.unit
def test_averages_are_scored_and_weights_come_back_untouched():
    options, source, state = make(epochs=1, warmup_epochs=0.0, ema=0.9)
    for average in state.averages:
        average.assign(np.asarray(average) * 0.5)
    weights, averages = state.model.get_weights(), [np.array(average) for average in state.averages]
    scores = loop.make_scorer(DEFAULT, state, source, options)()
    assert all(map(np.array_equal, weights, state.model.get_weights()))
    assert all(map(np.array_equal, averages, map(np.asarray, state.averages)))
    plain = steps.State(state.model, state.optimizer, [], [], [])
    state.model.set_weights(averages)
    assert scores == loop.make_scorer(DEFAULT, plain, source, options)()


@pytest.mark.unit
def test_the_moving_average_moves_by_its_decay():
    options, source, state = make(epochs=1, warmup_epochs=0.0, ema=0.9)
    iterator = iter(input_pipeline.training_batches(source, options, epoch=0))
    train_steps = steps.make_train_steps(DEFAULT, state, options)
    # (1 + n) / (10 + n) in step n, so that the random weights of the beginning are soon forgotten, and at most 0.9.
    for step, decay in ((0, 0.1), (1, 2 / 11), (79, 80 / 89), (81, 0.9), (1000, 0.9)):
        state.optimizer.iterations.assign(step)
        before = [np.array(average) for average in state.averages]
        train_steps(iterator, tf.constant(1), tf.zeros(3))
        for average, old, new in zip(state.averages, before, state.model.get_weights(), strict=True):
            assert np.allclose(average, decay * old + (1 - decay) * new, atol=1e-6)
    assert all(map(np.array_equal, loop.final_weights(state), map(np.asarray, state.averages)))


@pytest.mark.unit
def test_mixed_targets_and_binary_losses():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.standard_normal((3, 4)), tf.float32)
    batch = {
        "label": tf.constant([0, 1, 2]),
        "other_label": tf.constant([3, 1, 0]),
        "share": tf.constant([0.7, 0.4, 1.0]),
    }
    targets = losses.one_hot(batch, logits)
    assert np.allclose(targets, [[0.7, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0]])
    binary = np.array(targets) > 0
    theirs = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    assert np.allclose(losses.binary_cross_entropy(targets, logits), theirs(binary, logits), atol=1e-6)
    smooth = binary * 0.8 + 0.2 / 4
    assert np.allclose(losses.binary_cross_entropy(targets, logits, 0.2), theirs(smooth, logits), atol=1e-6)
    most = np.array(targets) > 0.5
    options = config.make({"loss": "bce", "bce_threshold": 0.5, "label_smoothing": 0.0})
    assert np.allclose(losses.LOSSES["bce"](targets, logits, options), theirs(most, logits), atol=1e-6)


@pytest.mark.unit
def test_the_plateau_schedule_divides_when_val_loss_stays():
    options = config.make({"schedule": "plateau", "warmup_epochs": 0.0, "learning_rate": 1.0, "plateau_epochs": 2})
    val_losses = [3.0, 2.0, 2.0, 1.99995, 1.0, 1.5, 1.0, 1.1, 1.2]
    rates = [
        optimizers.plateau_rate(options, [{"val_loss": loss} for loss in val_losses[:epochs]])
        for epochs in range(len(val_losses) + 1)
    ]
    assert np.allclose(rates, [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert optimizers.schedule(options, 100) == 1.0


@pytest.mark.unit
def test_one_cycle_starts_at_a_25th():
    options = config.make({"schedule": "one_cycle", "epochs": 8, "warmup_epochs": 2.0, "learning_rate": 1.0})
    schedule = optimizers.schedule(options, 100)
    assert np.allclose([float(schedule(step)) for step in (0, 100, 200, 500, 800)], [0.04, 0.52, 1, 0.5, 0], atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("synchronized", [False, True])
def test_fused_batch_normalization_is_kerass(dtype, synchronized):
    """Outputs, gradients and moving statistics, in training and in testing."""
    rng = np.random.default_rng(0)
    images, upstream = (tf.constant(rng.normal(3, 2, (16, 5, 4, 8)), dtype) for _ in range(2))
    options = {"epsilon": 1e-5, "momentum": 0.9, "dtype": "mixed_bfloat16" if dtype == "bfloat16" else dtype}
    found = []
    for layer in (
        keras.layers.BatchNormalization(**options),
        normalization.FusedBatchNormalization(**options, synchronized=synchronized),
    ):
        layer.build(images.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 8))
        layer.beta.assign(np.linspace(-1, 1, 8))
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            loss = tf.reduce_sum(tf.cast(outputs * outputs * upstream, tf.float32))
        gradients = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
        found.append([outputs, *gradients, layer.moving_mean, layer.moving_variance, layer(images, training=False)])
    limit = 1e-5 if dtype == "float32" else 0.03
    for values in zip(*found, strict=True):
        one, other = (np.asarray(tf.cast(value, tf.float32)) for value in values)
        assert np.abs(one - other).max() < limit * np.abs(one).max()
