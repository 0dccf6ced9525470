"""Views of a photograph for testing: ten crops, or the whole of it at several scales (He 2015, section 3.4)."""

import functools
import itertools

import numpy as np
import PIL.Image

from keras_resnet.preprocessing import resize_shorter
from train import input_pipeline, scoring

CHUNK = 32  # photographs whose views are in memory together: 50 MB of ten crops, 120 MB of the paper's five scales
PIXELS_AT_A_TIME = 2**22  # of one forward pass: 83 images of 224 x 224, or 7 of 640 x 853


def predict(predictor, source, split, crops=1, scales=()):
    """Runs a predictor over a split, on one view or the average over several views of each image.

    Several views average their softmax: "the predictions made by the network's softmax layer" (Krizhevsky et al.
    2012, section 4.1, which He 2015 cites for its ten crops). facebook/fb.resnet.torch, and torchvision's example of
    `TenCrop`, average what comes before it, the logits.

    Args:
        predictor: `train.predictor.Predictor`; with scales one of any height and width.
        source: `train.data.Source`.
        split: "train", "validation" or "test".
        crops: 1 for the centre crop, or 10.
        scales: instead of crops, lengths in pixels of the shorter side.
    Returns:
        Logits or probabilities float32 (n, classes) and labels int64 (n,).
    Raises:
        ValueError: if the images or classes are not the predictor's.
    """
    if scales:
        make = functools.partial(scaled, scales=scales, interpolation=source.preprocessing.interpolation)
    elif crops == 10:
        make = functools.partial(ten_crops, size=source.image_shape[:2], preprocessing=source.preprocessing)
    else:
        return scoring.predict(predictor, source, split)
    scoring.check_fits(predictor, source)
    outputs, averages, labels = [], [], []
    rows = ((make(image), label) for image, label, _ in input_pipeline.photographs(source, split))
    while chunk := list(itertools.islice(rows, CHUNK)):
        views, chunk_labels = zip(*chunk, strict=True)
        of_views = _outputs(predictor, views)
        outputs.append(of_views.mean(axis=1))
        averages.append(scoring.softmax(of_views).mean(axis=1))
        labels += chunk_labels
    outputs = np.concatenate(outputs)
    is_done = scoring.is_probabilities(outputs)  # by the model; told from all images, a few logits may look like it
    return outputs if is_done else np.concatenate(averages), np.array(labels)


def ten_crops(image, size, preprocessing):
    """The four corners and the centre of the resized image, then their mirror images.

    The corners are the rectangle's, as in torchvision's `TenCrop`. Krizhevsky et al. first cut out its central square.

    Args:
        image: uint8 (height, width, c).
        size: (h, w) of a crop.
        preprocessing: `keras_resnet.preprocessing.Preprocessing` for that size.
    Returns:
        list of ten uint8 (h, w, c): top left, top right, bottom left, bottom right, centre.
    Raises:
        ValueError: if the resized image is smaller than a crop.
    """
    resized = _resized(image, preprocessing.resize or max(min(image.shape[:2]), *size), preprocessing.interpolation)
    spare = [side - crop for side, crop in zip(resized.shape[:2], size, strict=True)]
    if min(spare) < 0:
        raise ValueError(
            f"The image is smaller than a crop. Expected at least {size[0]} x {size[1]} pixels. Received: "
            f"{resized.shape[0]} x {resized.shape[1]} after resizing. Leave out --crops."
        )
    bottom, right = spare
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2)))
    crops = [resized[top : top + size[0], left : left + size[1]] for top, left in corners]
    return crops + [crop[:, ::-1] for crop in crops]


def scaled(image, scales, interpolation):
    """The whole image at each scale, uint8 (h, w, c): min(h, w) is the scale, the proportions are the image's."""
    return [_resized(image, scale, interpolation) for scale in scales]


def _resized(image, size, interpolation):
    """The image as Pillow resizes it, each channel by itself, however many there are."""
    if min(image.shape[:2]) == size:
        return image
    planes = [PIL.Image.fromarray(image[..., channel]) for channel in range(image.shape[-1])]
    return np.stack([np.asarray(resize_shorter(plane, size, interpolation)) for plane in planes], axis=-1)


def _outputs(predictor, views):
    """Scores float32 (images, views, classes) of lists of views, views of the same size in one batch."""
    flat = [view for of_image in views for view in of_image]
    outputs = np.empty((len(flat), predictor.num_classes), "float32")
    by_shape = {}
    for position, view in enumerate(flat):
        by_shape.setdefault(view.shape, []).append(position)
    for (height, width, _), positions in by_shape.items():
        step = max(1, PIXELS_AT_A_TIME // (height * width))
        for start in range(0, len(positions), step):
            batch = positions[start : start + step]
            outputs[batch] = predictor.predict(np.stack([flat[position] for position in batch]))
    return outputs.reshape(len(views), -1, predictor.num_classes)
