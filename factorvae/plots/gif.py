"""Animated pictures small enough for a README."""

import io
from collections.abc import Sequence

from PIL import Image

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def encode_gif(
    frames: Sequence[Image.Image], seconds: float = 4.0, max_bytes: int = 2_000_000
) -> bytes:
    """An endlessly looping GIF of less than `max_bytes`, a round of it about `seconds` long.

    Where it would be too large it is given fewer colours, then fewer frames, then half the size.

    Raises:
        ValueError: it is too large even so.
    """
    for shrink in (1, 2, 4):
        smaller = [frame.reduce(shrink) for frame in frames] if shrink > 1 else list(frames)
        for stride in (1, 2):
            for num_colors in (128, 48, 24):
                data = _encode(smaller[::stride], seconds, num_colors)
                if len(data) < max_bytes:
                    return data
    raise ValueError(f"{len(frames)} frames of {frames[0].size} do not fit into {max_bytes} bytes")


def _encode(frames: Sequence[Image.Image], seconds: float, num_colors: int) -> bytes:
    # One palette, taken from a few of the frames, and no dithering: flat areas stay flat, nothing
    # flickers, and what does not change costs no bytes.
    picked = frames[:: max(1, len(frames) // 8)]
    width, height = frames[0].size
    strip = Image.new("RGB", (width, height * len(picked)))
    for index, frame in enumerate(picked):
        strip.paste(frame, (0, index * height))
    found = strip.quantize(num_colors - 2, method=Image.Quantize.MEDIANCUT).getpalette()
    colors = zip(*[iter(found[: 3 * (num_colors - 2)])] * 3, strict=True)
    # The colours found are means: here the paper stays white and a black ground black, with no
    # other colour so near to them that the quantiser, which rounds, would take that one.
    colors = [color for color in colors if min(color) < 248 and max(color) > 7]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for color in [WHITE, BLACK, *colors] for value in color])
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    stream = io.BytesIO()
    indexed[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=10 * max(2, round(100 * seconds / len(frames))),  # GIF counts in 1/100 s
        loop=0,
    )
    return stream.getvalue()
