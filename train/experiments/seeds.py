"""Figures of nets that were trained from several seeds: rows by net, and what their differences show."""

# Points from which one seed shows a difference: two standard errors of that of two errors of 12 % on 10,000 images are
# 0.92, and there is the seed's own spread.
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


def direction(differences):
    """What differences in points show: 1 or -1 where they have that sign, 0 where they may be nothing.

    Args:
        differences: list of floats, one a seed. Several count if all have the same sign, one if it is of a point.
    Returns:
        1, -1 or 0.
    """
    if len(differences) == 1 and abs(differences[0]) < ONE_SEED_SHOWS:
        return 0
    signs = {(value > 0) - (value < 0) for value in differences}
    return signs.pop() if len(signs) == 1 else 0


def doubt(rows):
    """What the number of seeds behind rows with a column seed leaves open: a sentence."""
    seeds = len({row["seed"] for row in rows})
    if seeds == 1:
        return f"Of one seed: a difference below {ONE_SEED_SHOWS:.0f} point is read as none."
    return f"Of {seeds} seeds: a difference whose sign is not the same in all of them is read as none."
