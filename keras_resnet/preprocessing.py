"""From a photograph to a net's input, as the net's weights were evaluated."""

import dataclasses
import io
import os
import warnings

import numpy as np

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become inputs: resize, centre crop, (pixel / 255 - mean) / std.

    Attributes:
        resize: length in pixels that the shorter side is resized to; 0: crop the image as it is.
        crop: side of the centre crop in pixels.
        interpolation: "bilinear" or "bicubic", with antialiasing, as Pillow resizes.
        mean: of each channel, pixels counted from 0 to 1, in `channel_order`.
        std: of each channel, likewise.
        channel_order: "rgb" or "bgr", of the net's input.
    """

    resize: int
    crop: int
    interpolation: str = "bilinear"
    mean: tuple = (0.485, 0.456, 0.406)  # of ImageNet, as torchvision and timm count it
    std: tuple = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"

    def __post_init__(self):
        """Checks that the crop fits."""
        if self.crop < 1 or 0 < self.resize < self.crop or self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Expected resize to be 0 or at least crop, and interpolation one of {', '.join(INTERPOLATIONS)}. "
                f"Received: resize={self.resize}, crop={self.crop}, interpolation={self.interpolation!r}."
            )

    def for_size(self, side):
        """The same for inputs of another side in pixels, resized in proportion."""
        return dataclasses.replace(self, crop=side, resize=round(self.resize * side / self.crop))

    def scale_and_offset(self, channels=3):
        """Two lists, a number a channel: the net's input is pixel * scale + offset, pixels 0 to 255.

        Args:
            channels: 3, in `channel_order`, or 1 for grey images, which take the averages.
        """
        mean, std = np.array(self.mean), np.array(self.std)
        if channels == 1:
            mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
        return (1 / (255 * std)).tolist(), (-mean / std).tolist()


# As the publishers evaluate: torchvision's `Weights` enums, keras.applications' `preprocess_input`.
TORCHVISION = Preprocessing(256, 224)
CAFFE = Preprocessing(
    256, 224, mean=tuple(mean / 255 for mean in (103.939, 116.779, 123.68)), std=(1 / 255,) * 3, channel_order="bgr"
)
SLIM = Preprocessing(256, 224, mean=(0.5,) * 3, std=(0.5,) * 3)
RAW = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "channel_order": "rgb"}  # pixels 0 to 255 as they are
MOST_PIXELS = 2**26  # of a resized image; a file of a few bytes can name sides that fill any memory


class Preprocessor:
    """Images of any kind -> float32 (n, crop, crop, 3), the input of a net.

    Args:
        preprocessing: `Preprocessing`.
    """

    def __init__(self, preprocessing):
        self.preprocessing = preprocessing

    def __call__(self, images):
        """Input of the net from one image or a list of images.

        Args:
            images: path, bytes of an image file, `PIL.Image`, array uint8 or uint16 (h, w), (h, w, 1), (h, w, 3),
                (h, w, 4), RGB; or a list of these, or an array (n, h, w, c).
        Returns:
            float32 array (n, crop, crop, 3).
        Raises:
            ValueError: if something is not an image; the message says which.
        """
        return self.normalize(self.crops(images))

    def crops(self, images):
        """The resized and cropped pixels, RGB: uint8 array (n, crop, crop, 3); arguments as in a call."""
        is_batch = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        rows = list(images) if is_batch else [images]
        if not rows:
            raise ValueError("Expected at least one image. Received: none.")
        _warn_of_bgr([row for row in rows if isinstance(row, np.ndarray) and row.dtype.kind in "uf"])
        return np.stack([self._crop(open_image(row)) for row in rows])

    def normalize(self, pixels):
        """Pixels RGB 0 to 255 (n, h, w, 3) -> the net's input, float32 of the same shape."""
        scale, offset = (np.asarray(row, "float32") for row in self.preprocessing.scale_and_offset())
        ordered = pixels if self.preprocessing.channel_order == "rgb" else pixels[..., ::-1]
        return np.asarray(ordered, "float32") * scale + offset

    def _crop(self, image):
        crop = self.preprocessing.crop
        size = self.preprocessing.resize or max(min(image.size), crop)
        pixels = np.asarray(resize_shorter(image, size, self.preprocessing.interpolation))
        top, left = (round((side - crop) / 2) for side in pixels.shape[:2])
        return pixels[top : top + crop, left : left + crop]


def resize_shorter(image, size, interpolation):
    """The image with a shorter side of that many pixels; one that has it stays as it is.

    Args:
        image: `PIL.Image`.
        size: whole number. The longer side is cut to one too, as torchvision's and timm's Resize do.
        interpolation: "bilinear" or "bicubic".
    Returns:
        `PIL.Image`.
    Raises:
        ValueError: if the longer side would fill the memory.
    """
    import PIL.Image  # an optional dependency: nets are built without it

    width, height = image.size
    if min(width, height) == size:
        return image
    sides = (size, size * height // width) if width <= height else (size * width // height, size)
    if sides[0] * sides[1] > MOST_PIXELS:
        raise ValueError(f"Expected an image of usual proportions. Received: {width} x {height} pixels.")
    return image.resize(sides, getattr(PIL.Image.Resampling, interpolation.upper()))


def open_image(image):
    """A `PIL.Image` of mode RGB, upright, from whatever holds an image.

    EXIF rotation is applied, transparency laid on white, grey copied to three channels, 16 bits cut to 8.

    Args:
        image: path, bytes, `PIL.Image` or array, as in a call of `Preprocessor`.
    Returns:
        `PIL.Image.Image`.
    Raises:
        ValueError: if it is not an image.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ImportError("Pillow is not installed: pip install pillow") from error

    if hasattr(image, "shape"):  # numpy's arrays and every framework's
        image = PIL.Image.fromarray(_pixels(np.asarray(image)))
    elif not isinstance(image, PIL.Image.Image):
        source = io.BytesIO(image) if isinstance(image, bytes) else image
        title = f"{len(image)} bytes" if isinstance(image, bytes) else repr(image)
        if not isinstance(image, (bytes, str, os.PathLike)):
            raise ValueError(
                "Expected an image: a path, bytes, a PIL image or an array of pixels. "
                f"Received: {type(image).__name__}."
            )
        try:
            image = PIL.Image.open(source)
            image.load()
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"Expected an image file. Received: {title} ({error}).") from error
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # grey of 16 bits or of floats; Pillow itself would clip it to white
        array = np.asarray(image)
        is_deep = array.dtype.kind != "f" and array.max(initial=0) > 255
        return PIL.Image.fromarray(_pixels(array.astype("uint16") if is_deep else array))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _pixels(array):
    """uint8 (h, w, 3) or (h, w, 4) of an array of pixels."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ValueError(
            f"Expected pixels of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4). Received: shape {array.shape}."
        )
    if array.dtype == np.uint16:
        array = (array // 257).astype("uint8")
    elif array.dtype.kind == "f":
        array = _pixels_of_floats(array)
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            raise ValueError(f"Expected pixels from 0 to 255. Received: {array.min()} to {array.max()}.")
        array = array.astype("uint8")
    return np.stack([array] * 3, axis=-1) if array.ndim == 2 else array


def _pixels_of_floats(array):
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise ValueError(
            "Expected pixels from 0 to 255, not yet normalized. Received: floats from "
            f"{array.min():.3g} to {array.max():.3g}. Pass the image itself."
        )
    if array.max() <= 1:
        warnings.warn(
            "The image looks like floats from 0 to 1 where pixels from 0 to 255 are expected; they are "
            "multiplied by 255. Pass uint8 to be sure.",
            stacklevel=2,
        )
        array = array * 255
    return np.round(array).astype("uint8")


# Photographs are warmer than blue: of the 100 in imagenet_sample, blue exceeds red by more than this in 4 as they
# are and in 21 with their channels swapped; means of n images spread 1 / sqrt(n) as much (BUILD_NOTES.md, "BGR").
BLUE_MINUS_RED = 0.15


def _warn_of_bgr(arrays):
    colour = [array for array in arrays if array.ndim == 3 and array.shape[-1] == 3 and array.size]
    if not colour:
        return
    excess = np.mean([(array[..., 2].mean() - array[..., 0].mean()) / max(array.max(), 1) for array in colour])
    if excess > BLUE_MINUS_RED / len(colour) ** 0.5:
        warnings.warn(
            f"The images look like BGR: blue exceeds red by {excess:.0%} of the range. Expected RGB; "
            "OpenCV's arrays become RGB by image[..., ::-1].",
            stacklevel=4,
        )
