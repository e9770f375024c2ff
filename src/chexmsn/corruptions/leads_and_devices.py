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
from jaxtyping import Float
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
_LEADS, _TUBES = 0.55, 0.3  # shares among the devices; the rest are generators

PerImage = Float[Tensor, "B 1 1"]
Plane = Float[Tensor, "B H W"]


class Frame(NamedTuple):
    """The plane of the detector in mm: places of the pixels from the centre, a pixel's side, half the field's sides."""

    right: Float[Tensor, "B 1 W"]
    below: Float[Tensor, "B H 1"]
    pixel: PerImage
    half_width: PerImage
    half_height: PerImage


class Cable(NamedTuple):
    """Where a plane's points lie about a winding line, in mm: how far from its start, and how far from it aside."""

    along: Plane
    aside: Plane


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Lay the shadows of `level` devices over each image."""
    frame = _frame(images, known)
    order = torch.arange(_MOST, device=level.device).float().expand(len(level), -1)
    weights = present(level, order)[:, :, None, None]
    shadows = torch.zeros_like(images)
    for number in range(_MOST):
        shadows[:, 0].addcmul_(weights[:, number], _shadow(frame, draws.stream("device", number)))
    return (images + shadows).clamp_(0.0, 1.0)


def _frame(images: Images, known: Known) -> Frame:
    height, width = images.shape[2:]
    right, below = places(images)
    pixel = known.pixel_size(images)[:, None, None]
    return Frame(right * pixel, below * pixel, pixel, pixel * (width / 2), pixel * (height / 2))


def _shadow(frame: Frame, draws: Draws) -> Plane:
    """The shadow of one device per image, in units of the display range."""
    kind = draws.uniform(1)[:, :, None]
    others = torch.where(
        kind < _LEADS + _TUBES, _tube(frame, draws.stream("tube")), _generator(frame, draws.stream("generator"))
    )
    return torch.where(kind < _LEADS, _lead(frame, draws.stream("lead")), others)


def _lead(frame: Frame, draws: Draws) -> Plane:
    """An electrode somewhere on the chest, and its lead out of the field."""
    x, y, *_ = _numbers(draws)
    x, y = (1.3 * x - 0.65) * frame.half_width, (1.3 * y - 0.65) * frame.half_height
    cable = _cable(frame, x, y, torch.atan2(y, x), draws)
    away = torch.hypot(frame.right - x, frame.below - y)
    electrode = 0.1 * _disc(frame, away, 5.0) + 0.3 * _disc(frame, away, 2.0)
    return electrode + 0.25 * _strip(frame, cable.aside, 1.5) * _from(frame, cable.along)


def _tube(frame: Frame, draws: Draws) -> Plane:
    """A drain or tube with walls and a stripe, from its tip in the chest out of the field."""
    x, y, *_ = _numbers(draws)
    x, y = (x - 0.5) * frame.half_width, (y - 0.4) * frame.half_height
    cable = _cable(frame, x, y, torch.atan2(y - 0.3 * frame.half_height, x), draws)
    outer, inner, stripe = (_strip(frame, cable.aside, width) for width in (7.0, 5.0, 1.2))
    return (0.12 * outer - 0.06 * inner + 0.2 * stripe) * _from(frame, cable.along)


def _generator(frame: Frame, draws: Draws) -> Plane:
    """A pacemaker below a collarbone, and its lead to the heart."""
    x, y, left, *_ = _numbers(draws)
    x = torch.where(left < 0.7, 1.0, -1.0) * (0.45 + 0.1 * x) * frame.half_width
    y = (-0.5 + 0.1 * y) * frame.half_height
    to_right, to_below = 0.15 * frame.half_width - x, 0.25 * frame.half_height - y
    cable = _cable(frame, x, y, torch.atan2(to_below, to_right), draws)
    length = torch.hypot(to_right, to_below)
    case = ((frame.right - x) / 23).pow(4) + ((frame.below - y) / 20).pow(4)
    box = ((1 - case.pow(0.25)) * 20 / frame.pixel + 0.5).clamp(0.0, 1.0)
    lead = _strip(frame, cable.aside, 2.0) * _from(frame, cable.along) * _from(frame, length - cable.along)
    return torch.maximum(0.5 * box, 0.3 * lead)


def _numbers(draws: Draws) -> tuple[PerImage, ...]:
    return draws.uniform(3)[:, :, None, None].unbind(1)


def _cable(frame: Frame, x: PerImage, y: PerImage, heading: PerImage, draws: Draws) -> Cable:
    """A sine about a line that starts at (x, y), within 30 degrees of a heading."""
    turn, phase, swing, period = draws.stream("cable").uniform(4)[:, :, None, None].unbind(1)
    heading = heading + (turn - 0.5) * (math.pi / 3)
    right, below = frame.right - x, frame.below - y
    along = right * heading.cos() + below * heading.sin()
    amplitude = (0.03 + 0.09 * swing) * frame.half_width
    rate = 2 * math.pi / ((1.4 + 1.2 * period) * frame.half_width)
    angle = rate * along + 2 * math.pi * phase
    line = amplitude * (angle.sin() - (2 * math.pi * phase).sin())
    across = below * heading.cos() - right * heading.sin() - line
    return Cable(along, across.abs() / torch.hypot(amplitude * rate * angle.cos(), torch.ones_like(angle)))


def _strip(frame: Frame, aside: Plane, width: float) -> Plane:
    """The share of a pixel's width that lies in a strip."""
    near = torch.maximum(aside - frame.pixel / 2, torch.full_like(aside, -width / 2))
    return ((aside + frame.pixel / 2).clamp(max=width / 2) - near).clamp(min=0.0) / frame.pixel


def _from(frame: Frame, along: Plane) -> Plane:
    """1 where a line has begun, 0 before."""
    return (along / frame.pixel + 0.5).clamp(0.0, 1.0)


def _disc(frame: Frame, away: Plane, radius: float) -> Plane:
    """The share of a pixel that lies in a disc; one smaller than the pixel covers its area at most."""
    area = math.pi * (radius / frame.pixel) ** 2
    return ((radius - away) / frame.pixel + 0.5).clamp(0.0, 1.0) * area.clamp(max=1.0)
