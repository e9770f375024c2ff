"""Where the phantom is drawn: a detector in millimetres on which thicknesses add up.

Coordinates are millimetres of the patient: x grows towards the image's right (in a frontal view the
patient's left), y grows downwards, the origin is the middle of the chest. A drawing is a float32
array `size x size` of thickness in mm along the beam, so that overlapping structures simply add.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFilter

Plane = Float[ndarray, "S S"]
Line = Float[ndarray, "_ _"]
"""Points of a curve in mm: (x, y), or (x, y, depth) where the third coordinate runs along the beam."""
Length = float | int
"""In mm."""
Numbers = Float[ndarray, "..."] | float | int
"""One number or many."""
Points = Line | Sequence[Sequence[Length] | Float[ndarray, "2"]]
Stroke = tuple[Float[ndarray, "_ 2"], Float[ndarray, "_"]]
"""Places in mm and the volumes (mm3) put there: lines of any thickness, laid down many at once."""


@dataclass(frozen=True)
class Canvas:
    """A square detector of `size` pixels over `field` mm; the patient may be turned (radians) and shifted (mm)."""

    size: int
    field: float
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel(self) -> float:
        """Side of a pixel in mm."""
        return self.field / self.size

    @cached_property
    def _grid(self) -> tuple[Plane, Plane]:
        axis = ((np.arange(self.size, dtype=np.float32) + 0.5) * self.pixel - self.field / 2).astype(np.float32)
        u, v = axis[None, :] - self.shift[0], axis[:, None] - self.shift[1]
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return (cos * u + sin * v).astype(np.float32), (cos * v - sin * u).astype(np.float32)

    @property
    def x(self) -> Plane:
        """Patient's x of every pixel, in mm."""
        return self._grid[0]

    @property
    def y(self) -> Plane:
        """Patient's y of every pixel, in mm."""
        return self._grid[1]

    def pixels(self, line: Float[ndarray, "n d"]) -> Float[ndarray, "n 2"]:
        """Column and row (pixel centres are whole numbers) of points in mm."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = cos * line[:, 0] - sin * line[:, 1] + self.shift[0]
        v = cos * line[:, 1] + sin * line[:, 0] + self.shift[1]
        return np.stack([u, v], axis=1) / self.pixel + (self.size - 1) / 2

    def empty(self) -> Plane:
        """Nothing drawn yet."""
        return np.zeros((self.size, self.size), dtype=np.float32)

    def splat(self, points: Line, volume: Float[ndarray, "n"]) -> Plane:
        """Thickness (mm) of small volumes (mm3) put at points, each shared bilinearly by four pixels."""
        place = self.pixels(points) + 1  # on a frame one pixel wider all round, which catches what lies on the border
        wide = self.size + 2
        inside = np.all((place >= 0) & (place < wide - 1), axis=1)
        place, volume = place[inside], volume[inside]
        corner = place.astype(np.int64)
        right, down = (place - corner).T
        index = corner[:, 1] * wide + corner[:, 0]
        upper, lower = volume * (1 - down), volume * down
        total = np.bincount(index, upper * (1 - right), minlength=wide * wide)
        for offset, share in ((1, upper * right), (wide, lower * (1 - right)), (wide + 1, lower * right)):
            total += np.bincount(index + offset, share, minlength=wide * wide)
        return (total.reshape(wide, wide)[1:-1, 1:-1] / self.pixel**2).astype(np.float32)

    def curve(self, points: Points) -> Line:
        """A smooth curve (Catmull-Rom) through points, sampled more finely than the pixels."""
        given = np.asarray(points, dtype=np.float64)
        ends = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
        length = np.linalg.norm(np.diff(given, axis=0), axis=1).sum()
        position = np.linspace(0, len(given) - 1, max(8, int(1.4 * length / self.pixel)))
        index = np.minimum(position.astype(int), len(given) - 2)
        t = (position - index)[:, None]
        p0, p1, p2, p3 = (ends[index + k] for k in range(4))
        return 0.5 * (
            2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3
        )

    def stroke(
        self,
        line: Line,
        width: Numbers,
        thickness: Numbers,
        *,
        along: Numbers = 1.0,
    ) -> "Stroke":
        """A band along a curve, `width` mm across, `thickness` (a number or a profile across) times `along` mm deep.

        Where a curve with a third coordinate runs along the beam its material piles up, as in a rib's lateral arc.
        """
        width = np.broadcast_to(np.asarray(width, dtype=np.float64), (len(line),))
        tangent = np.gradient(line, axis=0)
        step = np.linalg.norm(tangent, axis=1)
        flat = np.maximum(np.linalg.norm(tangent[:, :2], axis=1, keepdims=True), 1e-9)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / flat
        count = max(3, int(np.ceil(1.1 * width.max() / self.pixel)))
        across = (np.arange(count) + 0.5) / count - 0.5
        profile = np.atleast_1d(np.asarray(thickness, dtype=np.float64))
        profile = np.interp(across, np.linspace(-0.5, 0.5, len(profile)), profile)
        points = line[:, None, :2] + across[None, :, None] * (width[:, None] * normal)[:, None, :]
        volume = profile[None, :] * (along * step * width)[:, None] / count
        return points.reshape(-1, 2), volume.ravel()

    def lay(self, strokes: Sequence["Stroke"]) -> Plane:
        """Thickness in mm of strokes together."""
        if not strokes:
            return self.empty()
        return self.splat(np.concatenate([points for points, _ in strokes]), np.concatenate([v for _, v in strokes]))

    def polygon(self, *outlines: Points, shades: Sequence[float] = (1.0,), soft: Length = 0.0) -> Plane:
        """Filled polygons with values from 0 to 1, later over earlier; edges blurred by `soft` mm."""
        image = Image.new("L", (2 * self.size, 2 * self.size))
        pen = ImageDraw.Draw(image)
        shades = [*shades] * (len(outlines) // len(shades))
        for outline, shade in zip(outlines, shades, strict=True):
            corners = 2 * self.pixels(np.asarray(outline, dtype=np.float64)) + 0.5
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=round(255 * shade))
        image = image.reduce(2).filter(ImageFilter.GaussianBlur(soft / self.pixel))
        return np.asarray(image, dtype=np.float32) / 255

    def ball(self, x: Length, y: Length, radius: Length, squash: Length = 1.0) -> Plane:
        """Thickness in mm of a ball (or of an ellipsoid `squash` times as high as wide)."""
        square = (self.x - np.float32(x)) ** 2 + ((self.y - np.float32(y)) / np.float32(squash)) ** 2
        return 2 * np.sqrt(np.maximum(np.float32(radius**2) - square, 0))

    def glow(self, x: Length, y: Length, width: Length, height: Length) -> Plane:
        """A Gaussian spot of height 1 with standard deviations in mm."""
        return np.exp(
            -0.5
            * (
                ((self.x - np.float32(x)) / np.float32(width)) ** 2
                + ((self.y - np.float32(y)) / np.float32(height)) ** 2
            )
        )

    def blur(self, image: Plane, sigma: Length) -> Plane:
        """Gaussian blur, `sigma` in mm, with the border repeated."""
        return blur(image, sigma / self.pixel)

    def look(self, values: Float[ndarray, "k"], start: Length, stop: Length, coordinate: Plane) -> Plane:
        """`values`, tabulated evenly from `start` to `stop`, at each coordinate (nearest, ends repeated)."""
        index = (
            (coordinate - np.float32(start)) * np.float32((len(values) - 1) / (stop - start)) + np.float32(0.5)
        ).astype(np.int32)
        return np.take(values.astype(np.float32), index, mode="clip")

    def texture(self, rng: np.random.Generator, sigma: Length) -> Plane:
        """Smooth random field of mean 0 and deviation 1, `sigma` mm wide.

        Drawn on a grid of its own, so that a picture of another size shows the same field.
        """
        cell = sigma / 1.5
        count = int(np.ceil(self.field / cell))
        field = blur(rng.standard_normal((count, count), dtype=np.float32), 1.5)
        picture = Image.fromarray(field / field.std()).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(picture)


def blur(image: Float[ndarray, "h w"], sigma: Length) -> Float[ndarray, "h w"]:
    """Gaussian blur with `sigma` in pixels and repeated border."""
    margin = int(np.ceil(3 * sigma)) + 1
    height, width = image.shape
    rows, columns = (-(side + 2 * margin) % 16 for side in (height, width))  # lengths the transform is quick at
    padded = np.pad(image, ((margin, margin + rows), (margin, margin + columns)), mode="edge")
    down = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(padded.shape[0])) ** 2).astype(np.float32)
    across = np.exp(-2 * (np.pi * sigma * np.fft.rfftfreq(padded.shape[1])) ** 2).astype(np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(padded) * down[:, None] * across[None, :], s=padded.shape)
    return smooth[margin : margin + height, margin : margin + width].astype(np.float32)


def rise(distance: Plane, width: Length) -> Plane:
    """A soft step from 0 to 1 where `distance` (mm) passes zero, about `width` mm wide."""
    return 0.5 + 0.5 * np.tanh(distance * np.float32(2 / width))
