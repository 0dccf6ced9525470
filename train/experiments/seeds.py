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


def compared(errors, others, num_images):
    """What the test errors of two nets show: the `direction` of their differences.

    Of one seed also two standard errors of the difference must be passed: few images show little.

    Args:
        errors: in per cent, one a seed.
        others: the same of the other net.
        num_images: that they are counted on.
    Returns:
        1 where the first are larger, -1 or 0.
    """
    variances = [share * (1 - share) / num_images for share in (mean(errors) / 100, mean(others) / 100)]
    return direction(minus(errors, others), max(ONE_SEED_SHOWS, 200 * math.sqrt(sum(variances))))


def relation(errors, others, num_images):
    """What one net is to another by their test errors, in words; arguments as of `compared`."""
    return {-1: "better than", 0: "level with", 1: "worse than"}[compared(errors, others, num_images)]


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


def doubt(rows):
    """What the number of seeds behind rows with columns seed and, of test errors, test_images leaves open."""
    seeds = len({row["seed"] for row in rows})
    if seeds == 1:
        number = rows[0].get("test_images")
        errors = f", or two standard errors on {number:,} test images," if number else ""
        return f"Of one seed: a difference below {ONE_SEED_SHOWS:.0f} point{errors} is read as none."
    return f"Of {seeds} seeds: a difference whose sign is not the same in all of them is read as none."
