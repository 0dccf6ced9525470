"""Texts that the exporter writes for other programs: code and pages with @NAMES@ to fill in."""

import os


def path(name):
    """Where a template lies."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def filled(name, words):
    """A template with its @NAMES@ replaced.

    Args:
        name: file beside this one.
        words: dict from name to what stands for it.
    Returns:
        str.
    """
    with open(path(name), encoding="utf-8") as file:
        text = file.read()
    for key, word in words.items():
        text = text.replace(f"@{key}@", str(word))
    return text
