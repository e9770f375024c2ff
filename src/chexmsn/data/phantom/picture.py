"""One image of a study, from the keys to the gray levels."""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from chexmsn.core.errors import UserError
from chexmsn.data.phantom import devices, findings
from chexmsn.data.phantom.canvas import Canvas, Plane
from chexmsn.data.phantom.chest import Chest
from chexmsn.data.phantom.exposure import Technique, develop, expose
from chexmsn.data.phantom.frontal import draw_frontal
from chexmsn.data.phantom.lateral import draw_lateral
from chexmsn.data.phantom.people import Body, Visit, body_of, course, streams


@dataclass(frozen=True)
class Spec:
    """Everything an image depends on; as text it stands where other collections have a path.

    >>> Spec.parse(str(Spec(seed=0, size=96, patient=3, study=0, image=0))).patient
    3
    """

    seed: int
    size: int
    patient: int
    study: int
    image: int

    def __str__(self) -> str:
        return f"phantom:{self.seed}:{self.size}:{self.patient}:{self.study}:{self.image}"

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """The specification in a text. Raises UserError for anything else."""
        if not re.fullmatch(r"phantom(:[0-9]{1,15}){5}", text):
            raise UserError(f"{text!r} is no image of the phantom: it reads phantom:seed:size:patient:study:image")
        return cls(*map(int, text.split(":")[1:]))


def picture(spec: Spec) -> UInt8[ndarray, "S S"]:
    """The radiograph of a specification, 8 bit, white = dense."""
    body, visit = body_of(spec.seed, spec.patient), course(spec.seed, spec.patient)[spec.study]
    view = visit.views[spec.image]
    return radiograph(spec, body, visit, view, technique_of(spec, view))


def field_of(seed: int, patient: int, body: Body) -> float:
    """Side of the detector's field in mm: large patients need all of it, others are collimated."""
    return float(340 + 45 * body.fat + streams(seed, patient)("field").uniform(0, 20))


def technique_of(spec: Spec, view: str) -> Technique:
    """Dose, scatter and display of an image; the bedside has no grid and less reliable doses."""
    rng = streams(spec.seed, spec.patient, spec.study)("technique", spec.image)
    bedside = view == "AP"
    return Technique(
        dose=float(np.exp(rng.normal(-1.0 if bedside else -0.3, 0.9 if bedside else 0.5))),
        scatter=float(rng.uniform(0.35, 0.6) if bedside else rng.uniform(0.12, 0.32)),
        equalised=float(rng.uniform(0.25, 0.6)),
        darkness=float(rng.normal(0, 0.12)),
    )


def radiograph(spec: Spec, body: Body, visit: Visit, view: str, technique: Technique) -> UInt8[ndarray, "S S"]:
    """A chest as `visit` says, exposed as `technique` says."""
    canvas = canvas_of(spec, body, view)
    chest = chest_of(spec, canvas, body, visit, view)
    per_image = streams(spec.seed, spec.patient, spec.study)
    quanta = expose(chest.attenuation(), canvas.pixel, technique, per_image("quanta", spec.image))
    display = develop(quanta, canvas.pixel, technique)
    framed = _collimate_and_mark(display, view, per_image("frame", spec.image))
    return np.round(255 * framed).astype(np.uint8)


def chest_of(spec: Spec, canvas: Canvas, body: Body, visit: Visit, view: str) -> Chest:
    """Anatomy, findings and devices of one image. A finding keeps its place from study to study."""
    own = streams(spec.seed, spec.patient)
    chest = (draw_lateral if view == "LATERAL" else draw_frontal)(canvas, body, visit, own)
    for name, draw in findings.FINDINGS.items():
        if severity := visit.severity(name):
            draw(chest, severity, visit.sides[name], own(name, view == "LATERAL"))
    if severity := visit.severity("Support Devices"):
        devices.implant(chest, severity, visit.bedside, own("Support Devices", visit.number))
    return chest


def canvas_of(spec: Spec, body: Body, view: str) -> Canvas:
    """The detector of an image, with the patient a little turned and off centre."""
    rng = streams(spec.seed, spec.patient, spec.study)("position", spec.image)
    loose = 1.8 if view == "AP" else 1.0
    angle, right, down = rng.normal(0, 0.014 * loose), rng.normal(0, 5 * loose), rng.normal(4, 6 * loose)
    return Canvas(spec.size, field_of(spec.seed, spec.patient, body), float(angle), (float(right), float(down)))


# Strokes of the markers on a grid of 4 x 6.
GLYPHS = {
    "L": [[(0, 0), (0, 6), (4, 6)]],
    "R": [[(0, 6), (0, 0), (3, 0), (4, 1), (4, 2), (3, 3), (0, 3)], [(2, 3), (4, 6)]],
    "AP": [[(0, 6), (2, 0), (4, 6)], [(1, 4), (3, 4)], [(6, 6), (6, 0), (9, 0), (10, 1), (10, 2), (9, 3), (6, 3)]],
}


def _collimate_and_mark(display: Plane, view: str, rng: np.random.Generator) -> Plane:
    """Black shutters at the borders of some images, and lead letters at a corner."""
    size = display.shape[0]
    image = Image.fromarray(display)
    pen = ImageDraw.Draw(image)
    if rng.random() < 0.3:
        margins = np.maximum(rng.normal(-0.01, 0.025, 4), 0) * size
        pen.rectangle((0, 0, size, margins[0]), fill=0.0)
        pen.rectangle((0, size - margins[1], size, size), fill=0.0)
        pen.rectangle((0, 0, margins[2], size), fill=0.0)
        pen.rectangle((size - margins[3], 0, size, size), fill=0.0)
    side = 1 if rng.random() < 0.75 else -1
    left = 0.86 if side > 0 else 0.06
    corner = np.array([left + rng.uniform(0, 0.05), rng.uniform(0.04, 0.12)]) * size
    unit = rng.uniform(0.006, 0.010) * size
    letters = [("L" if side > 0 else "R", corner)]
    if view == "AP" and rng.random() < 0.5:
        letters.append(("AP", corner + np.array([-2.0, 9.0]) * unit))
    for name, place in letters:
        for line in GLYPHS[name]:
            pen.line(
                [tuple(place + unit * np.array(point)) for point in line], fill=0.97, width=max(1, round(1.3 * unit))
            )
    return np.asarray(image)
