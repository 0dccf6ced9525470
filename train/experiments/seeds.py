"""Figures of nets that were trained from several seeds: rows by net, and what their differences show."""

import math

# Points from which one seed shows a difference, where the images number so many that their sampling adds little: the
# seed's own spread.
ONE_SEED_SHOWS = 1.0


def by_net(rows):
    """Rows of each net, in the order of their first."""
    found = {}
    for row in rows:
        found.setdefault(row["net"], []).append(row)
    return found


def mean(values):
    """Mean of a list of floats."""
    return sum(values) / len(values)


def of_seeds(rows, name):
    """A column of rows, one a seed, in the order of the seeds: list."""
    return [row[name] for row in sorted(rows, key=lambda row: row["seed"])]


def minus(ones, others):
    """Differences seed by seed: list of floats."""
    return [one - other for one, other in zip(ones, others, strict=True)]


def least(rows):
    """Points from which one seed shows a difference of test errors: two standard errors of it, or ONE_SEED_SHOWS.

    Args:
        rows: with columns test_error, in per cent, and test_images.
    Returns:
        float.
    """
    share = mean([row["test_error"] for row in rows]) / 100
    return max(ONE_SEED_SHOWS, 200 * math.sqrt(2 * share * (1 - share) / rows[0]["test_images"]))


def direction(differences, shown_from=ONE_SEED_SHOWS):
    """What differences in points show: 1 or -1 where they have that sign, 0 where they may be nothing.

    Args:
        differences: list of floats, one a seed. Several count if all have the same sign, one from shown_from on.
        shown_from: points.
    Returns:
        1, -1 or 0.
    """
    if len(differences) == 1 and abs(differences[0]) < shown_from:
        return 0
    signs = {(value > 0) - (value < 0) for value in differences}
    return signs.pop() if len(signs) == 1 else 0


def doubt(rows, shown_from=ONE_SEED_SHOWS):
    """What the number of seeds behind rows with a column seed leaves open: a sentence."""
    seeds = len({row["seed"] for row in rows})
    if seeds == 1:
        return f"Of one seed: a difference below {shown_from:.1f} points is read as none."
    return f"Of {seeds} seeds: a difference whose sign is not the same in all of them is read as none."
