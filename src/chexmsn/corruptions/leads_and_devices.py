"""Leads and devices: electrodes with their leads, tubes, generators with a pacing lead, as shadows.

A shadow is attenuation, so it is added to the display value (to the logarithm of the exposure), and those that cross
add up.

Cause: monitoring and support in intensive care.
Source: chest tubes alone can carry the pneumothorax models of public data (Rueckel et al. 2021, doi
10.1007/s00330-021-07833-w, abstract read); ECG leads change decisions on COVID (arXiv 2201.09360, abstract read).
Shapes, sizes, shadows and ladder are ours: leads of 1.5 mm with an electrode of 10 mm, tubes of 7 mm with walls and
a stripe, generators of 46 x 40 mm. Kind, place, direction and curve are drawn.
Level: how many; of a broken number the last is faint. What is there at a mild level is there at a stronger one. At
224 px, a pixel of a 430 mm field is 1.9 mm wide: a lead is thinner than that, and as faint as its share of the
pixel.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import present
from chexmsn.corruptions._geometry import places
from chexmsn.corruptions._known import NOTHING_KNOWN, Known

TITLE = "Leads and devices"
CAUSE = "monitoring and support in intensive care"
SOURCE = "Rueckel et al. 2021, doi 10.1007/s00330-021-07833-w (abstract read); shapes and ladder ours"
FAMILY = "radiographic"
UNIT = "number of devices"
LEVELS = (1.0, 2.0, 4.0, 6.0, 8.0)
IDENTITY = 0.0
_MOST = 8
_LEADS = 0.65  # share among leads and tubes
_STRIPS = (  # width in mm and shadow of what runs along the cable of a lead, a tube and a generator
    ((1.5, 0.25), (7.0, 0.12), (2.0, 0.3)),
    ((1.0, 0.0), (5.0, -0.06), (1.0, 0.0)),  # the hollow inside of a tube
    ((1.0, 0.0), (1.2, 0.2), (1.0, 0.0)),  # its stripe
)
_GENERATORS = 2 / 3  # share of the images that have a generator among the eight; nobody has two

PerImage = Float[Tensor, "B 1 1"]
Plane = Float[Tensor, "B H W"]


class Frame(NamedTuple):
    """The plane of the detector in mm: places of the pixels from the centre, a pixel's side, half the field's sides."""

    right: Float[Tensor, "B 1 W"]
    below: Float[Tensor, "B H 1"]
    pixel: PerImage
    half_width: PerImage
    half_height: PerImage


class Kind(NamedTuple):
    """What a device is in each image; what is neither is a tube."""

    is_lead: Bool[Tensor, "B 1 1"]
    is_generator: Bool[Tensor, "B 1 1"]

    def choose(self, lead: PerImage | float, tube: PerImage | float, generator: PerImage | float) -> PerImage:
        """The value of each image's kind."""
        return torch.where(self.is_lead, lead, torch.where(self.is_generator, generator, tube))


class Course(NamedTuple):
    """Where a cable starts, in mm right of and below the centre, its heading in radians, and how far it goes, in mm."""

    x: PerImage
    y: PerImage
    heading: PerImage
    length: PerImage


class Cable(NamedTuple):
    """Where a plane's points lie about a winding line, in mm: how far from its start, and how far from it aside."""

    along: Plane
    aside: Plane


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Lay the shadows of `level` devices over each image."""
    frame = _frame(images, known)
    order = torch.arange(_MOST, device=level.device).float().expand(len(level), -1)
    weights = present(level, order)[:, :, None, None]
    generator = (draws.uniform(1)[:, :, None] * (_MOST / _GENERATORS)).floor()
    shadows = torch.zeros_like(images)
    for number in range(_MOST):
        device = _shadow(frame, generator == number, draws.stream("device", number))
        shadows[:, 0].addcmul_(weights[:, number], device)
    return (images + shadows).clamp_(0.0, 1.0)


def _frame(images: Images, known: Known) -> Frame:
    height, width = images.shape[2:]
    right, below = places(images)
    pixel = known.pixel_size(images)[:, None, None]
    return Frame(right * pixel, below * pixel, pixel, pixel * (width / 2), pixel * (height / 2))


def _shadow(frame: Frame, is_generator: Bool[Tensor, "B 1 1"], draws: Draws) -> Plane:
    """The shadow of one device per image, in units of the display range."""
    kind = Kind(~is_generator & (draws.uniform(1)[:, :, None] < _LEADS), is_generator)
    courses = (draw(frame, draws.stream(draw.__name__)) for draw in (_lead, _tube, _generator))
    course = Course(*map(kind.choose, *courses))
    wire = _wire(frame, kind, course, draws)
    right, below = frame.right - course.x, frame.below - course.y
    box = torch.maximum(wire, 0.5 * _box(frame, right, below))
    return torch.where(is_generator, box, wire + kind.is_lead * _electrode(frame, torch.hypot(right, below)))


def _wire(frame: Frame, kind: Kind, course: Course, draws: Draws) -> Plane:
    cable = _cable(frame, course, draws)
    shadow = torch.zeros_like(cable.along)
    for strip in _STRIPS:
        width, strength = (kind.choose(*values) for values in zip(*strip, strict=True))
        shadow += strength * _strip(frame, cable.aside, width)
    return shadow * _from(frame, cable.along) * _from(frame, course.length - cable.along)


def _lead(frame: Frame, draws: Draws) -> Course:
    """From an electrode somewhere on the chest out of the field."""
    x, y, _ = _numbers(draws)
    x, y = (1.3 * x - 0.65) * frame.half_width, (1.3 * y - 0.65) * frame.half_height
    return Course(x, y, torch.atan2(y, x) + _askew(draws), torch.full_like(x, math.inf))


def _tube(frame: Frame, draws: Draws) -> Course:
    """From the tip of a drain or tube in the chest out of the field, rather upwards."""
    x, y, _ = _numbers(draws)
    x, y = (x - 0.5) * frame.half_width, (y - 0.4) * frame.half_height
    return Course(x, y, torch.atan2(y - 0.3 * frame.half_height, x) + _askew(draws), torch.full_like(x, math.inf))


def _generator(frame: Frame, draws: Draws) -> Course:
    """From a pacemaker below a collarbone, the left one more often, to the heart."""
    x, y, left = _numbers(draws)
    x = torch.where(left < 0.7, 1.0, -1.0) * (0.45 + 0.1 * x) * frame.half_width
    y = (-0.5 + 0.1 * y) * frame.half_height
    to_right, to_below = 0.15 * frame.half_width - x, 0.25 * frame.half_height - y
    return Course(x, y, torch.atan2(to_below, to_right), torch.hypot(to_right, to_below))


def _numbers(draws: Draws) -> tuple[PerImage, ...]:
    return draws.uniform(3)[:, :, None, None].unbind(1)


def _askew(draws: Draws) -> PerImage:
    """Up to 30 degrees to either side, in radians."""
    return (draws.stream("askew").uniform(1)[:, :, None] - 0.5) * (math.pi / 3)


def _cable(frame: Frame, course: Course, draws: Draws) -> Cable:
    """A sine about the line of a course."""
    phase, swing, period = _numbers(draws.stream("cable"))
    right, below = frame.right - course.x, frame.below - course.y
    cos, sin = course.heading.cos(), course.heading.sin()
    along = right * cos + below * sin
    amplitude = (0.03 + 0.09 * swing) * frame.half_width
    rate = 2 * math.pi / ((1.4 + 1.2 * period) * frame.half_width)
    angle = rate * along + 2 * math.pi * phase
    line = amplitude * (angle.sin() - (2 * math.pi * phase).sin())
    across = below * cos - right * sin - line
    return Cable(along, across.abs() / torch.hypot(amplitude * rate * angle.cos(), torch.ones_like(angle)))


def _strip(frame: Frame, aside: Plane, width: PerImage) -> Plane:
    """The share of a pixel's width that lies in a strip of some mm."""
    near = torch.maximum(aside - frame.pixel / 2, -width / 2)
    return (torch.minimum(aside + frame.pixel / 2, width / 2) - near).clamp(min=0.0) / frame.pixel


def _from(frame: Frame, along: Plane) -> Plane:
    """1 where a line has begun, 0 before."""
    return (along / frame.pixel + 0.5).clamp(0.0, 1.0)


def _electrode(frame: Frame, away: Plane) -> Plane:
    """A pad with a metal stud."""
    return 0.1 * _disc(frame, away, 5.0) + 0.3 * _disc(frame, away, 2.0)


def _disc(frame: Frame, away: Plane, radius: float) -> Plane:
    """The share of a pixel that lies in a disc; one smaller than the pixel covers its area at most."""
    area = math.pi * (radius / frame.pixel) ** 2
    return ((radius - away) / frame.pixel + 0.5).clamp(0.0, 1.0) * area.clamp(max=1.0)


def _box(frame: Frame, right: Float[Tensor, "B 1 W"], below: Float[Tensor, "B H 1"]) -> Plane:
    """The share of a pixel that lies in a case of 46 x 40 mm with round corners."""
    edge = ((right / 23).square().square() + (below / 20).square().square()).sqrt().sqrt()
    return ((1 - edge) * 20 / frame.pixel + 0.5).clamp(0.0, 1.0)
