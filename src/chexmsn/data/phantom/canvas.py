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
from PIL import Image, ImageDraw

Plane = Float[ndarray, "S S"]
Line = Float[ndarray, "n d"]
"""Points of a curve in mm: (x, y), or (x, y, depth) where the third coordinate runs along the beam."""
Stroke = tuple[Float[ndarray, "m 2"], Float[ndarray, "m"]]
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
        place = self.pixels(points)
        corner = np.floor(place).astype(np.int64)
        part = place - corner
        total = np.zeros(self.size * self.size)
        for right in (0, 1):
            for down in (0, 1):
                column, row = corner[:, 0] + right, corner[:, 1] + down
                inside = (column >= 0) & (column < self.size) & (row >= 0) & (row < self.size)
                share = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
                index = (row * self.size + column)[inside]
                total += np.bincount(index, (volume * share)[inside], minlength=total.size)
        return (total / self.pixel**2).astype(np.float32).reshape(self.size, self.size)

    def curve(self, points: Sequence[Sequence[float]]) -> Line:
        """A smooth curve (Catmull-Rom) through points, sampled more finely than the pixels."""
        given = np.asarray(points, dtype=np.float64)
        ends = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
        length = np.linalg.norm(np.diff(given, axis=0), axis=1).sum()
        position = np.linspace(0, len(given) - 1, max(8, int(2 * length / self.pixel)))
        index = np.minimum(position.astype(int), len(given) - 2)
        t = (position - index)[:, None]
        p0, p1, p2, p3 = (ends[index + k] for k in range(4))
        return 0.5 * (
            2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3
        )

    def stroke(
        self, line: Line, width: Float[ndarray, "n"] | float, thickness: Float[ndarray, "k"] | float
    ) -> "Stroke":
        """A band along a curve: `width` mm across, `thickness` mm deep (a profile over the width, or one number).

        Where a curve with a third coordinate runs along the beam its material piles up, as it does in a rib's lateral arc.
        """
        width = np.broadcast_to(np.asarray(width, dtype=np.float64), (len(line),))
        tangent = np.gradient(line, axis=0)
        step = np.linalg.norm(tangent, axis=1)
        flat = np.maximum(np.linalg.norm(tangent[:, :2], axis=1, keepdims=True), 1e-9)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / flat
        count = max(3, int(np.ceil(1.3 * width.max() / self.pixel)))
        across = (np.arange(count) + 0.5) / count - 0.5
        profile = np.atleast_1d(np.asarray(thickness, dtype=np.float64))
        profile = np.interp(across, np.linspace(-0.5, 0.5, len(profile)), profile)
        points = line[:, None, :2] + across[None, :, None] * (width[:, None] * normal)[:, None, :]
        volume = profile[None, :] * (step * width)[:, None] / count
        return points.reshape(-1, 2), volume.ravel()

    def lay(self, strokes: Sequence["Stroke"]) -> Plane:
        """Thickness in mm of strokes together."""
        if not strokes:
            return self.empty()
        return self.splat(np.concatenate([points for points, _ in strokes]), np.concatenate([v for _, v in strokes]))

    def polygon(self, *outlines: Sequence[Sequence[float]] | Line) -> Plane:
        """Filled polygons: 1 inside, 0 outside, smooth at the edge."""
        image = Image.new("L", (2 * self.size, 2 * self.size))
        pen = ImageDraw.Draw(image)
        for outline in outlines:
            corners = 2 * self.pixels(np.asarray(outline, dtype=np.float64)) + 0.5
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=255)
        return np.asarray(image.reduce(2), dtype=np.float32) / 255

    def ball(self, x: float, y: float, radius: float, squash: float = 1.0) -> Plane:
        """Thickness in mm of a ball (or of an ellipsoid `squash` times as high as wide)."""
        square = (self.x - np.float32(x)) ** 2 + ((self.y - np.float32(y)) / np.float32(squash)) ** 2
        return 2 * np.sqrt(np.maximum(np.float32(radius**2) - square, 0))

    def glow(self, x: float, y: float, width: float, height: float) -> Plane:
        """A Gaussian spot of height 1 with standard deviations in mm."""
        return np.exp(
            -0.5
            * (
                ((self.x - np.float32(x)) / np.float32(width)) ** 2
                + ((self.y - np.float32(y)) / np.float32(height)) ** 2
            )
        )

    def blur(self, image: Plane, sigma: float) -> Plane:
        """Gaussian blur, `sigma` in mm, with the border repeated."""
        return blur(image, sigma / self.pixel)

    def texture(self, rng: np.random.Generator, sigma: float, cell: float = 1.5) -> Plane:
        """Smooth random field of mean 0 and deviation 1, `sigma` mm wide.

        Drawn on a grid of `cell` mm, so that a picture of another size shows the same field.
        """
        count = int(np.ceil(self.field / cell))
        field = blur(rng.standard_normal((count, count), dtype=np.float32), sigma / cell)
        picture = Image.fromarray(field / field.std()).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(picture)


def blur(image: Float[ndarray, "h w"], sigma: float) -> Float[ndarray, "h w"]:
    """Gaussian blur with `sigma` in pixels and repeated border."""
    margin = int(np.ceil(3 * sigma)) + 1
    height, width = image.shape
    rows, columns = (-(side + 2 * margin) % 16 for side in (height, width))  # lengths the transform is quick at
    padded = np.pad(image, ((margin, margin + rows), (margin, margin + columns)), mode="edge")
    down = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(padded.shape[0])) ** 2).astype(np.float32)
    across = np.exp(-2 * (np.pi * sigma * np.fft.rfftfreq(padded.shape[1])) ** 2).astype(np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(padded) * down[:, None] * across[None, :], s=padded.shape)
    return smooth[margin : margin + height, margin : margin + width].astype(np.float32)


def rise(distance: Plane, width: float) -> Plane:
    """A soft step from 0 to 1 where `distance` (mm) passes zero, about `width` mm wide."""
    return 0.5 + 0.5 * np.tanh(distance * np.float32(2 / width))
