"""What `train/evaluate.py` writes: scores.json, per_class.csv, confusion.png and worst.png."""

import csv
import json
import os

from train import input_pipeline, pictures, scoring
from train.run_folder import written_aside

SCORES, PER_CLASS, CONFUSION, WORST = "scores.json", "per_class.csv", "confusion.png", "worst.png"
NUM_WORST = 25  # mistakes on the contact sheet


def write(folder, facts, outputs, labels, source, split):
    """Writes the four files, each whole or not at all; earlier ones are replaced.

    Args:
        folder: made if need be.
        facts: dict for `scores.json`.
        outputs: float (n, classes), logits or probabilities.
        labels: int (n,).
        source: `train.data.Source` of the images.
        split: "train", "validation" or "test".
    """
    with written_aside(os.path.join(folder, SCORES)) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(json.dumps(facts, indent=2) + "\n")
    path = os.path.join(folder, PER_CLASS)
    with written_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "title", "num_images", "top1"])
        titles = dict(zip(source.class_names, source.titles, strict=True))
        for name, num_images, top1 in scoring.per_class(outputs, labels, source.class_names):
            writer.writerow([name, titles[name], num_images, top1])
    with written_aside(os.path.join(folder, CONFUSION)) as aside:
        pictures.draw_confusion(aside, scoring.confusion(outputs, labels), source.titles)
    mistakes = _mistakes(outputs, labels, source, split)
    num_wrong = int(sum(scoring.ranks(outputs, labels) > 0))
    shown = f"All {num_wrong}" if num_wrong == len(mistakes) else f"The {len(mistakes)} most confident of {num_wrong:,}"
    heading = f"{shown} mistakes on {len(labels):,} images: what the model said, and what it is"
    with written_aside(os.path.join(folder, WORST)) as aside:
        pictures.draw_worst(aside, mistakes, heading)


def _mistakes(outputs, labels, source, split):
    """(image, answer's name, confidence, class's name) of the worst mistakes, the worst first."""
    positions = scoring.worst(outputs, labels, NUM_WORST).tolist()
    answers, confidences = scoring.answers(outputs), scoring.confidences(outputs)
    images = (image for image, _, _ in input_pipeline.photographs(source, split, positions))
    images = dict(zip(sorted(positions), images, strict=True))
    return [
        (images[at], source.titles[answers[at]], float(confidences[at]), source.titles[labels[at]]) for at in positions
    ]
