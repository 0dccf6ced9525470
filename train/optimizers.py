"""Keras's optimizers and the learning rate of a run."""

import keras

DIVISOR = 10  # He 2015, sections 3.4 and 4.2: "divided by 10"


def _sgd(config, rate):
    return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)


# Weight decay is the loop's (train/steps.py), the same for all; with it Adam is AdamW. Keras's Muon is for matrices,
# here the classifier's, and is Adam on all other weights.
OPTIMIZERS = {
    "sgd": _sgd,
    "adamw": lambda config, rate: keras.optimizers.Adam(rate),
    "lamb": lambda config, rate: keras.optimizers.Lamb(rate),
    "muon": lambda config, rate: keras.optimizers.Muon(rate, weight_decay=None),
}


def build(config, model, steps_per_epoch):
    """The optimizer of a run, whose learning rate follows the schedule.

    Args:
        config: `train.config.Config`.
        model: `keras.Model` to train.
        steps_per_epoch: whole number.
    Returns:
        Keras optimizer whose variables exist.
    """
    optimizer = OPTIMIZERS[config.optimizer](config, schedule(config, steps_per_epoch))
    optimizer.build(model.trainable_variables)
    return optimizer


def schedule(config, steps_per_epoch):
    """The learning rate over the steps of a run.

    Args:
        config: `train.config.Config`.
        steps_per_epoch: whole number.
    Returns:
        `keras.optimizers.schedules.LearningRateSchedule`, or the rate itself where no step changes it, so that
        callbacks may set it.
    Raises:
        ValueError: if the warm-up leaves no step to what follows it.
    """
    rate, steps = config.learning_rate, config.epochs * steps_per_epoch
    warmup = _num_warmup_steps(config, steps_per_epoch)
    if config.schedule in ("constant", "plateau") and not warmup:
        return rate
    if config.schedule in ("cosine", "one_cycle"):
        start = rate / 25 if config.schedule == "one_cycle" else 0.0  # Smith and Topin 2018, as fast.ai and torch
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=start if warmup else rate,
            decay_steps=steps - warmup,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    return _piecewise(config, steps, warmup)


def _num_warmup_steps(config, steps_per_epoch):
    """Steps of the warm-up, which end before the run does, and no later than the first fall of "steps"."""
    warmup, steps = round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch
    longest = steps // 2 if config.schedule == "steps" else steps - 1
    if warmup > longest:
        raise ValueError(
            f"Expected a warm-up of at most {longest} of the run's {steps} steps under --schedule={config.schedule}. "
            f"Received: --warmup_epochs={config.warmup_epochs:.4g}, which are {warmup} steps. Pass a smaller "
            "--warmup_epochs, such as 0."
        )
    return warmup


def _piecewise(config, steps, warmup):
    """Constant rates: a warm-up, in ten stairs or at `warmup_rate`, then `learning_rate` with or without falls."""
    if config.warmup_rate:
        rises, rates = [warmup], [config.warmup_rate]
    else:
        rises = [-(-warmup * part // 10) for part in range(1, 11)] if warmup else []
        rates = [config.learning_rate * part / 10 for part in range(1, 11)] if warmup else []
    # He 2015, section 4.2: at 32k and 48k of 64k iterations.
    falls = [steps // 2, steps * 3 // 4] if config.schedule == "steps" else []
    rates += [config.learning_rate / DIVISOR**fall for fall in range(len(falls) + 1)]
    last_steps = [step - 1 for step in rises + falls]  # Keras counts a boundary to the rate before it
    return keras.optimizers.schedules.PiecewiseConstantDecay(last_steps, rates)


def plateau_rate(config, history):
    """The learning rate after these epochs under the schedule "plateau" (He 2015, section 3.4).

    It is divided by 10 whenever `plateau_epochs` epochs have brought no val_loss smaller by 1e-4, as Keras's
    ReduceLROnPlateau does; computed from the history, so that a resumed run has it too.

    Args:
        config: `train.config.Config`.
        history: list of dicts, one an epoch.
    Returns:
        float.
    """
    rate, best, waited = config.learning_rate, float("inf"), 0
    for row in history:
        better = row["val_loss"] < best - 1e-4
        best, waited = (row["val_loss"], 0) if better else (best, waited + 1)
        if waited >= config.plateau_epochs:
            rate, waited = rate / DIVISOR, 0
    return rate
