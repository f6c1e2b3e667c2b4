"""Make a picture small enough for a repository: fewer colours, never fewer pixels."""

import io

from PIL import Image

from tramontane.lab.paths import LabError

LIMIT_BYTES = 250_000
_COLOURS = (256, 128, 64)


def shrink(png: bytes, limit: int = LIMIT_BYTES) -> bytes:
    """Return the picture as a PNG of at most `limit` bytes, with as many colours as that allows.

    Raises:
        LabError: 64 colours are still too many.
    """
    whole = Image.open(io.BytesIO(png)).convert("RGB")
    best = _written(whole)
    for colours in _COLOURS:
        if len(best) <= limit:
            break
        # The refinement costs five seconds and keeps rare colours, those of thin lines.
        few = whole.quantize(
            colours, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE
        )
        best = _written(few)
    if len(best) > limit:
        raise LabError(
            f"picture: must be at most {limit} bytes (got {len(best)} with {_COLOURS[-1]} colours,"
            f" {whole.width} x {whole.height}); make the board shorter"
        )
    return best


def _written(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
