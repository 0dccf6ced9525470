"""Texts that the exporter writes for other programs: code and pages with @NAMES@ to fill in."""

import os

from export.formats import FORMATS


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


def words(manifest):
    """What the templates of a bundle name, for its first file.

    Args:
        manifest: dict, the content of `bundle.json`.
    Returns:
        dict from a @NAME@ without its signs to str or int.
    """
    height, width, channels = manifest["image_shape"]
    classes = manifest["num_classes"]
    file, row = next(iter(manifest["files"].items()))
    is_grey, is_float = channels == 1, row["input"] == "float32"
    put = "putFloat({}.toFloat())" if is_float else "put({}.toByte())"
    is_integer = row["output"] == "int8"
    values = ["((299 * red + 587 * green + 114 * blue) / 1000)"] if is_grey else ["red", "green", "blue"]
    lines = ["| file | format | bytes | input | output | for |", "| --- | --- | --- | --- | --- | --- |"]
    for name, one in manifest["files"].items():
        suits = FORMATS[one["format"]].suits
        lines.append(f"| `{name}` | {one['format']} | {one['bytes']:,} | {one['input']} | {one['output']} | {suits} |")
    return {
        "NAME": manifest["name"],
        "FILE": file,
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "CHANNEL_WORDS": "grey" if is_grey else "red, green, blue",
        "MAGICK": "gray" if is_grey else "rgb",
        "CLASSES": classes,
        "PIXEL": row["input"],
        "PIXEL_CPP": "float" if is_float else "uint8_t",
        "PIXEL_BYTES": channels * (4 if is_float else 1),
        "PUT": "; ".join(f"image.{put.format(value)}" for value in values),
        "SCORE": "int8, (score + 128) / 256 is the probability" if is_integer else "float, probabilities",
        "SCORE_CPP": "int8_t" if is_integer else "float",
        "SCORE_KOTLIN": "ByteArray" if is_integer else "FloatArray",
        "VALUE_CPP": "(score + 128) / 256.0f" if is_integer else "score",
        "VALUE_KOTLIN": f"FloatArray({classes}) {{ (scores[0][it] + 128) / 256f }}" if is_integer else "scores[0]",
        "OUTPUTS": _outputs(manifest),
        "RESIZE": manifest["resize"],
        "INTERPOLATION": manifest["interpolation"],
        "GREY": "\n  It takes colour images only: this net is for grey ones, use the code above." if is_grey else "",
        "TABLE": "\n".join(lines),
        "DATA": manifest["golden"]["data"],
    }


def _outputs(manifest):
    """How the files give probabilities, in a sentence."""
    outputs = {row["output"] for row in manifest["files"].values()}
    if outputs == {"float32"}:
        return "float32 probabilities: quantized inside, nothing to scale outside"
    return "probabilities (int8 where the table says so: (score + 128) / 256; MediaPipe does not read these)"
