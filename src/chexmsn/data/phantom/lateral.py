"""The lateral chest: the patient faces the image's left, both lungs lie over each other, arms are raised."""

import numpy as np

from chexmsn.data.phantom.canvas import Canvas, Plane, Stroke, rise
from chexmsn.data.phantom.chest import LUNG, Chest
from chexmsn.data.phantom.frontal import DOME, LONG_BONE, RIB, callus, vessel_tree
from chexmsn.data.phantom.people import Body, Fracture, Streams, Visit, fracture_of

# The cavity's outline: height in the lung, x of its front and back in mm for a chest of 160 mm depth.
HEIGHT = np.array([-0.05, 0.0, 0.08, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
FRONT = np.array([12, 4, -22, -48, -70, -80, -84, -84, -80.0])
BACK = np.array([20, 34, 56, 72, 84, 86, 80, 70, 60.0])


def draw_lateral(canvas: Canvas, body: Body, study: Visit, streams: Streams) -> Chest:
    """All layers of a lateral view without the findings that are laid over it."""
    x, y = canvas.x, canvas.y
    scale, apex = body.cavity_depth / 160, -0.57 * body.lung_height
    base = apex + body.lung_height + 40  # the posterior angle lies deepest
    height = ((y - apex) / (base - apex)).astype(np.float32)
    front, back = (np.interp(height, HEIGHT, scale * edge).astype(np.float32) for edge in (FRONT, BACK))
    middle, half = (front + back) / 2, (back - front) / 2
    across = np.clip(1 - np.abs((x - middle) / half) ** 2.6, 0, 1)
    cavity = 1.75 * body.half_width * across**0.5 * np.clip(height / 0.25, 0, 1) ** 0.5
    above = _above(body, study, x, apex, scale) - y
    chest = Chest(
        canvas=canvas,
        body=_body(canvas, body, x, y, front, back, apex),
        cavity=cavity.astype(np.float32),
        mediastinum=_mediastinum(canvas, body, study, scale, apex, base),
        lung=rise(above, 2.5) * np.clip(1 - (height - 1.0) / 0.1, 0, 1),
        density=np.full_like(x, LUNG * body.lung_density),
        vessels=canvas.empty(),
        bone=body.mineral * _bones(canvas, body, apex, base, scale, fracture_of(study, streams("Fracture"))),
        metal=canvas.empty(),
        wall=np.minimum(x - front, back - x),
        above=above,
        height=height,
        side=lambda side: np.full_like(x, 0.6),  # one of two lungs lying over each other
        at=lambda side, t, part: _place(scale, apex, base, t, part),
        hila={side: (2.0 + 3 * side, apex + (0.44 + 0.02 * side) * (base - apex)) for side in (-1, 1)},
        frontal=False,
    )
    chest.vessels = 0.8 * vessel_tree(chest, body, streams("vessels", "lateral"))
    chest.density = chest.density * (1 + 0.05 * canvas.texture(streams("parenchyma", "lateral"), 3.0))
    return chest


def _place(scale: float, apex: float, base: float, height: float, part: float) -> tuple[float, float]:
    front, back = (scale * float(np.interp(height, HEIGHT, edge)) for edge in (FRONT, BACK))
    return front + part * (back - front), apex + height * (base - apex)


def _above(body: Body, study: Visit, x: Plane, apex: float, scale: float) -> Plane:
    """y of the diaphragm: high in front, falling to the deep posterior angle."""
    lift = 8 + 18 * study.severity("Atelectasis") if study.severity("Atelectasis") else 0.0
    part = (x / scale + 84) / 170
    dome = apex + body.lung_height - lift
    return (dome + 44 * np.clip(part - 0.35, 0, 1) ** 2 / 0.42 + 22 * np.clip(0.3 - part, 0, 1)).astype(np.float32)


def _body(canvas: Canvas, body: Body, x: Plane, y: Plane, front: Plane, back: Plane, apex: float) -> Plane:
    wall = 8 + 0.5 * body.wall
    belly = (6 + 26 * body.fat) * np.clip((y - 70) / 140, 0, 1)
    bust = 44 * body.breast * np.exp(-(((y - 48) / 42) ** 2))
    left, right = np.minimum(front - wall - np.maximum(belly, bust), -52), np.maximum(back + wall + 14, 74)
    middle, half = (left + right) / 2, (right - left) / 2
    trunk = np.sqrt(np.clip(1 - np.abs((x - middle) / half) ** 2.4, 0, 1)) * (
        1.75 * body.half_width + 50 + 50 * body.fat
    )
    trunk = trunk * np.clip((y - apex + 75) / 130, 0.42, 1)
    arms = canvas.polygon(
        [(-110, apex - 120), (-20, apex - 120), (70, apex - 40), (84, apex + 34), (40, apex + 46), (-40, apex + 10)],
        soft=9.0,
    )
    total = trunk + 85 * arms
    return total.astype(np.float32)


def _mediastinum(canvas: Canvas, body: Body, study: Visit, scale: float, apex: float, base: float) -> Plane:
    """Heart low in front, aortic arch and descending aorta, hila, the tissue round the trachea."""
    grow = body.heart * (1 + 0.40 * study.severity("Cardiomegaly") ** 0.7)
    wide = study.severity("Enlarged Cardiomediastinum")
    low = base - apex
    u, v = canvas.x + 36 * scale - 14 * (grow - 1), canvas.y - apex - 0.68 * low
    radius = ((u + 0.35 * v) / (48 * grow * scale)) ** 2 + ((v - 0.2 * u) / (58 * grow)) ** 2
    heart = 105 * np.exp(-0.7 * radius**2)
    arch = canvas.curve(
        [
            (-22, apex + 0.42 * low),
            (-16, apex + 0.26 * low),
            (12, apex + 0.21 * low),
            (38, apex + 0.32 * low),
            (50, apex + 0.6 * low),
            (48, apex + 1.0 * low),
        ]
    )
    vessels = canvas.lay([canvas.stroke(arch, 27.0 + 10 * wide + 6 * body.aging, 27 * DOME)])
    upper = (52 + 60 * wide) * canvas.glow(-14 - 12 * wide, apex + 0.14 * low, 21 + 12 * wide, 0.15 * low)
    hila = 34 * canvas.glow(2, apex + 0.44 * low, 11, 15)
    return (heart + vessels + upper + hila).astype(np.float32)


def _bones(canvas: Canvas, body: Body, apex: float, base: float, scale: float, broken: Fracture | None) -> Plane:
    strokes = _ribs(canvas, body, apex, scale, broken)
    outlines, level, number = [], apex - 70.0, 0
    while level < base + 90:
        tall, deep = 15 + 0.85 * min(number, 14), 21 + 0.9 * min(number, 14)
        ends = (
            np.interp((np.array([level, level + tall]) - apex) / (base - apex), HEIGHT, scale * BACK) - 8 - 0.5 * deep
        ).tolist()
        (x1, x2), low = ends, level + tall
        outlines += [
            [(x1, level), (x1 + deep, level), (x2 + deep, low), (x2, low)],
            [(x1, level - 1), (x1 + deep, level - 1), (x1 + deep, level + 1.4), (x1, level + 1.4)],
            [(x2, low - 1.4), (x2 + deep, low - 1.4), (x2 + deep, low + 1), (x2, low + 1)],
            [
                (x1 + deep + 6, level + 2),
                (x1 + deep + 26, level + tall + 2),
                (x1 + deep + 23, level + tall + 8),
                (x1 + deep + 4, level + 8),
            ],
        ]
        level += tall + 4.2 - 1.5 * body.aging
        number += 1
    sternum = [
        (scale * float(np.interp(t, HEIGHT, FRONT)) - 7, apex + t * (base - apex)) for t in (0.12, 0.3, 0.5, 0.7)
    ]
    strokes.append(canvas.stroke(canvas.curve(sternum), 11.0, LONG_BONE))
    blade = canvas.curve([(58, apex + 20), (74, apex + 70), (92, apex + 118)])
    strokes += [canvas.stroke(blade + np.array([shift, 0.0]), 7.0, LONG_BONE) for shift in (0.0, 9.0)]
    return canvas.lay(strokes) + 22.0 * canvas.polygon(*outlines, shades=(0.65, 1.0, 1.0, 0.35), soft=0.9)


def _ribs(canvas: Canvas, body: Body, apex: float, scale: float, broken: Fracture | None) -> list[Stroke]:
    """Ribs of both sides, slanting down from the spine to the front."""
    strokes = []
    for number in range(1, 11):
        for shift in (0.0, 6.5):
            start = apex + 4 + (number - 1) * body.rib_step + shift
            drop = min(34 + 16 * number, 100) * body.rib_slope
            ends = np.interp([(number - 1) * 0.09 + 0.03, (number - 1) * 0.09 + 0.25], HEIGHT, scale * BACK)
            front = float(np.interp((number - 1) * 0.09 + 0.35, HEIGHT, scale * FRONT))
            line = canvas.curve(
                [
                    (ends[0], start),
                    (ends[1] - 4, start + 0.2 * drop),
                    (0.5 * front + 0.4 * ends[0], start + 0.65 * drop),
                    (front + 16, start + drop),
                ]
            )
            if broken and number in broken.ribs and shift == 0.0:
                cut = len(line) // 2
                strokes += [canvas.stroke(line[:cut], 9.0, 0.7 * RIB), callus(canvas, line[cut], broken)]
                line = line[cut:] + np.array([0.0, broken.step])
            strokes.append(canvas.stroke(line, 9.0, 0.7 * RIB))
    return strokes
