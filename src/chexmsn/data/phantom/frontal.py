"""The frontal chest (PA or AP), seen as the reader sees it: the patient's left is on the right."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from chexmsn.data.phantom.canvas import Canvas, Length, Numbers, Plane, Stroke, rise
from chexmsn.data.phantom.chest import LUNG, Chest
from chexmsn.data.phantom.people import Body, Fracture, Streams, Visit, fracture_of

# Thickness of bone in mm across a rib and across a clavicle or arm: shells seen from the side; a plain round profile.
RIB = np.array([2.0, 4.2, 2.8, 2.1, 1.9, 1.9, 2.1, 2.8, 4.6, 2.4])
LONG_BONE = np.array([5.5, 10.5, 7.5, 6.2, 5.8, 5.8, 6.2, 7.5, 10.5, 5.5])
DOME = np.array([0.0, 0.7, 0.95, 1.0, 0.95, 0.7, 0.0])

# Borders of the cardiomediastinal silhouette: height in the lung, distance from the midline in mm.
HEIGHT = np.array([-0.25, 0.02, 0.12, 0.22, 0.27, 0.32, 0.37, 0.43, 0.50, 0.58, 0.66, 0.74, 0.82, 0.90, 1.0, 1.3])
RIGHT = np.array([27, 27, 25, 24, 23.5, 23, 24, 27, 32, 38, 42, 43, 42, 40, 36, 30.0])
LEFT = np.array([26, 25, 27, 33, 36, 34, 29, 34, 42, 54, 67, 77, 82, 80, 70, 50.0])
DEPTH = np.array([60, 60, 64, 74, 78, 78, 80, 90, 105, 112, 118, 120, 120, 116, 110, 100.0])


@dataclass(frozen=True)
class Frame:
    """The numbers of one frontal view, in mm."""

    apex: float
    base: float  # costophrenic angle
    half_width: float
    dome: dict[int, float]  # y of the dome of the diaphragm on each side
    right: Float[ndarray, "k"]
    left: Float[ndarray, "k"]

    @classmethod
    def of(cls, body: Body, study: Visit) -> "Frame":
        """The frame of a body in a view; findings that change shapes (heart, mediastinum, volume) are in it."""
        bedside = study.bedside
        apex = -0.57 * body.lung_height
        depth = body.lung_height * (0.90 if bedside else 1.0)
        dome_right = apex + depth
        loss = study.severity("Atelectasis")
        lifted = {side: 10 + 22 * loss if loss and side == study.sides["Atelectasis"] else 0.0 for side in (-1, 1)}
        dome = {-1: dome_right - lifted[-1], 1: dome_right + body.dome_gap - lifted[1]}
        heart = body.heart * (1.07 if bedside else 1.0) * (1 + 0.55 * study.severity("Cardiomegaly") ** 0.7)
        grow = 1 + (heart - 1) * rise_line(HEIGHT, 0.45, 0.12)
        wide = 28 * study.severity("Enlarged Cardiomediastinum") ** 0.7 * bump_line(HEIGHT, 0.18, 0.16)
        unfolded = 9 * body.aging * bump_line(HEIGHT, 0.26, 0.05)
        scale = body.half_width / 132
        return cls(
            apex=apex,
            base=dome_right + 34,
            half_width=body.half_width,
            dome=dome,
            right=scale * (RIGHT * grow + wide),
            left=scale * (LEFT * grow + 1.15 * wide + unfolded),
        )

    def height_of(self, y: Numbers) -> Numbers:
        return (y - self.apex) / (self.base - self.apex)

    def y_at(self, height: Numbers) -> Numbers:
        return self.apex + height * (self.base - self.apex)

    def outer(self, height: Numbers) -> Numbers:
        """Distance of the chest wall from the midline."""
        rounded = np.sqrt(1 - np.clip(1 - np.asarray(height) / 0.85, 0, 1) ** 2.3)
        tapered = 1 - 0.05 * np.clip(np.asarray(height) - 0.85, 0, 0.5)
        return 38 + (self.half_width - 38) * rounded * tapered

    def border(self, side: int, height: Numbers) -> Numbers:
        """Distance of the silhouette's border from the midline on a side."""
        return np.interp(height, HEIGHT, self.left if side > 0 else self.right)


def rise_line(values: Float[ndarray, "k"], middle: Length, width: Length) -> Float[ndarray, "k"]:
    """A soft step along a line."""
    return 0.5 + 0.5 * np.tanh((values - middle) / width)


def bump_line(values: Float[ndarray, "k"], middle: Length, width: Length) -> Float[ndarray, "k"]:
    """A soft bump along a line."""
    return np.exp(-0.5 * ((values - middle) / width) ** 2)


def draw_frontal(canvas: Canvas, body: Body, study: Visit, streams: Streams) -> Chest:
    """All layers of a frontal view without the findings that are laid over it."""
    frame = Frame.of(body, study)
    x, y = canvas.x, canvas.y
    height = frame.height_of(y).astype(np.float32)
    rows = np.linspace(-0.8, 2.0, 1401)
    outer = canvas.look(frame.outer(rows), -0.8, 2.0, height)
    cavity = _cavity(frame, body, x, height, outer)
    above = _above(frame, body, x, y)
    lung = rise(above, 2.5) + 0.22 * np.exp(np.minimum(above, 0) / 14) * rise(-above, 2.5)
    lung *= np.clip(1 - (height - 1.02) / 0.12, 0, 1)
    chest = Chest(
        canvas=canvas,
        body=_body(canvas, frame, body, study, x, y),
        cavity=cavity,
        mediastinum=_mediastinum(canvas, frame, body, x, height),
        lung=lung.astype(np.float32),
        density=np.full_like(x, LUNG * body.lung_density),
        vessels=canvas.empty(),
        bone=_bones(canvas, frame, body, study, fracture_of(study, streams("Fracture"))),
        metal=canvas.empty(),
        wall=_wall(canvas, frame, x, y, outer),
        above=above,
        height=height,
        side=lambda side: rise(side * x, 16),
        at=lambda side, t, across: _place(frame, side, t, across),
        hila={side: (side * 37 * body.half_width / 132, frame.y_at(0.45) - 6 * side) for side in (-1, 1)},
        frontal=True,
    )
    hilum = sum(canvas.glow(hx, hy, 9, 15) for hx, hy in chest.hila.values())
    chest.vessels = vessel_tree(chest, body, streams("vessels")) + 9 * hilum
    chest.density = chest.density * (1 + 0.05 * canvas.texture(streams("parenchyma"), 3.0))
    _airways(chest, frame)
    _abdomen(chest, frame, body, study, streams("abdomen"))
    return chest


def _place(frame: Frame, side: int, height: float, across: float) -> tuple[float, float]:
    inner = min(float(frame.border(side, height)), float(frame.outer(height)) - 20)
    return side * (inner + across * (float(frame.outer(height)) - inner)), frame.y_at(height)


def _cavity(frame: Frame, body: Body, x: Plane, height: Plane, outer: Plane) -> Plane:
    """Depth of the rib cage: two domes at the apices that merge into one barrel."""
    middle = 46 * np.clip(1 - height / 0.55, 0, 1)
    inner = middle - np.clip(60 * height / 0.3 + 4, 0, 200)
    lateral = np.abs(x)
    off = np.where(
        lateral > middle, (lateral - middle) / (outer - middle), (middle - lateral) / np.maximum(middle - inner, 1)
    )
    depth = body.cavity_depth * np.sqrt(1 - np.clip(1 - height / 0.6, 0, 1) ** 2)
    return (depth * np.sqrt(np.clip(1 - off**2, 0, 1))).astype(np.float32)


def _wall(canvas: Canvas, frame: Frame, x: Plane, y: Plane, outer: Plane) -> Plane:
    """Distance from the inside of the chest wall: exact where the wall is straight, from what is beside and above."""
    rows = np.linspace(0, 0.85, 300)
    roof = np.interp(np.linspace(0, 200, 401), frame.outer(rows), frame.y_at(rows))
    beside, beneath = outer - np.abs(x), y - canvas.look(roof, 0, 200, np.abs(x))
    inward = np.maximum(beside, 0) * np.maximum(beneath, 0) / np.maximum(np.hypot(beside, beneath), 1e-3)
    return np.where((beside > 0) & (beneath > 0), inward, np.minimum(beside, beneath))


def _above(frame: Frame, body: Body, x: Plane, y: Plane) -> Plane:
    """Millimetres above the diaphragm: a dome on each side, falling to the costophrenic angle."""
    across = np.abs(x) / frame.half_width
    lateral, medial = np.clip(across - 0.45, 0, 1) / 0.55, np.clip(0.45 - across, 0, 1) / 0.45
    sag = 38 * lateral**2.2 + 12 * medial**2
    meet = rise(x, 30)
    dome = frame.dome[-1] * (1 - meet) + frame.dome[1] * meet
    return (dome + sag * body.dome_curve - y).astype(np.float32)


def _mediastinum(canvas: Canvas, frame: Frame, body: Body, x: Plane, height: Plane) -> Plane:
    """Heart and vessels: per row an interval with an elliptic profile, its borders smoothed."""
    rows = np.linspace(-0.8, 2.0, 1401)
    kernel = bump_line(np.linspace(-3, 3, 85), 0, 1)
    right, left, deep = (
        np.convolve(np.pad(np.interp(rows, HEIGHT, border), 42, mode="edge"), kernel / kernel.sum(), "valid")
        for border in (frame.right, frame.left, DEPTH)
    )
    right, left, deep = (canvas.look(values, -0.8, 2.0, height) for values in (right, left, deep))
    u = np.where(x > 0, x / left, -x / right)
    profile = np.clip(1 - u**2, 0, 1) ** 0.6
    return (deep * profile * body.cavity_depth / 165).astype(np.float32)


def _body(canvas: Canvas, frame: Frame, body: Body, study: Visit, x: Plane, y: Plane) -> Plane:
    """Trunk, neck, shoulders, arms and breasts."""
    lateral = np.abs(x)
    half = frame.half_width + body.wall + 10 * body.fat * np.clip((y - 20) / 120, 0, 1)
    shoulder = frame.apex - 42 + 34 * np.clip((lateral - 48) / 75, 0, 2) ** 1.4
    trunk = body.depth * np.sqrt(np.clip(1 - (lateral / half) ** 2, 0, 1))
    trunk *= np.clip((y - shoulder) / 120, 0, 1) ** 0.4
    neck = 118 * np.sqrt(np.clip(1 - (lateral / (54 + 8 * body.fat)) ** 2, 0, 1))
    total = np.maximum(trunk, neck).astype(np.float32)
    total = np.maximum(total, _shoulders(canvas, frame, body, study))
    if body.breast:
        for side in (-1, 1):
            total = total + _breast(canvas, frame, body, side)
    return total


def _shoulders(canvas: Canvas, frame: Frame, body: Body, study: Visit) -> Plane:
    top, edge = frame.apex, frame.half_width + body.wall
    slope = [(36, top - 74), (62, top - 44), (110, top - 30), (160, top - 24), (188, top - 10), (206, top + 24)]
    if study.bedside:  # arms beside the trunk
        arm = [(228, top + 330), (edge + 14, top + 330), (edge + 4, top + 150), (edge - 2, top + 112)]
    else:  # hands on the hips, elbows forward
        arm = [(262, top + 128), (262, top + 190), (edge + 34, top + 124), (edge + 2, top + 100)]
    arm = [*slope, *arm, (86, top + 72)]
    arms = [[(side * px, py) for px, py in arm] for side in (-1, 1)]
    return (92 + 30 * body.fat) * canvas.polygon(*arms, soft=7.0)


def _breast(canvas: Canvas, frame: Frame, body: Body, side: int) -> Plane:
    radius = 54 + 16 * body.breast
    cx, cy = side * frame.half_width * 0.58, frame.y_at(0.70) + 14 * body.breast
    ball = canvas.ball(cx, cy, radius, 0.95) / (2 * radius)
    fold = rise(cy + 0.72 * radius - 0.10 * np.abs(canvas.x - cx) - canvas.y, 10)  # above it fades, below it ends
    return (8 + 24 * body.breast) * ball**1.6 * fold


def _bones(canvas: Canvas, frame: Frame, body: Body, study: Visit, broken: Fracture | None) -> Plane:
    strokes, plates = [], []
    for side in (-1, 1):
        for number in range(1, 11):
            strokes += _rib(canvas, frame, body, broken, side, number)
        strokes += _clavicle(canvas, frame, study, broken, side)
        blade, edges = _scapula(canvas, frame, study, side)
        plates.append(blade)
        strokes += edges
    return body.mineral * (canvas.lay(strokes) + _spine(canvas, frame, body) + 2.4 * canvas.polygon(*plates, soft=1.0))


def _rib(canvas: Canvas, frame: Frame, body: Body, broken: Fracture | None, side: int, number: int) -> list[Stroke]:
    """A rib from the spine round the side to its cartilage, as one arc or, where it is broken, as two pieces."""
    start = frame.apex + 2 + (number - 1) * body.rib_step
    drop = min(40 + 18 * number, 96) * body.rib_slope
    reach = float(frame.outer(max(frame.height_of(start + 0.5 * drop), 0.03))) + 3
    phi = np.linspace(0.06, 2.55 - 0.03 * abs(number - 5), int(1.1 * (reach + drop + 60) / canvas.pixel))
    neck = -7 * np.exp(-(((phi - 0.45) / 0.3) ** 2))  # a rib first climbs a little
    x = side * (16 + (reach - 16) * np.sin(phi) ** 0.9)
    line = np.stack([x, start + drop * (1 - np.cos(phi)) / 2 + neck, 60 * np.cos(phi)], axis=1)
    width = np.interp(phi, [0, 1.2, 2.6], [9.5, 10, 13.5]) * body.half_width / 132
    front = np.interp(
        phi, [0, 1.3, 1.9, 2.6], [1.25, 1.1, 0.6, 0.4]
    )  # thin and partly cartilage towards the breast bone
    if broken is None or side != broken.side or number not in broken.ribs:
        return [canvas.stroke(line, width, RIB, along=front)]
    cut = int(np.searchsorted(phi, broken.where + 0.10 * np.sin(2.4 * number)))
    outer = line[cut:] + np.array([side * 0.4, 1.0, 0]) * broken.step
    return [
        canvas.stroke(line[: cut + 1], width[: cut + 1], RIB, along=front[: cut + 1]),
        canvas.stroke(outer, width[cut:], RIB, along=front[cut:]),
        callus(canvas, (line[cut, :2] + outer[0, :2]) / 2, broken),
    ]


def _clavicle(canvas: Canvas, frame: Frame, study: Visit, broken: Fracture | None, side: int) -> list[Stroke]:
    y0 = frame.apex + (16 if study.bedside else 28)
    shape = [(0.14, 8), (0.36, 2), (0.62, -15), (0.88, -27), (1.12, -27)]
    line = canvas.curve([(side * part * frame.half_width, y0 + drop) for part, drop in shape])
    width = np.interp(np.linspace(0, 1, len(line)), [0, 0.15, 0.5, 1], [15, 11, 10, 12.0])
    if broken is None or not broken.clavicle or side != broken.side:
        return [canvas.stroke(line, width, LONG_BONE)]
    cut = len(line) // 2
    inner = line[:cut] + np.linspace(0, 1, cut)[:, None] ** 2 * np.array([0, -0.7 * broken.step])
    outer = line[cut:] + np.array([-side * 0.8 * broken.step, 1.1 * broken.step])
    return [*(canvas.stroke(part, 10.5, LONG_BONE) for part in (inner, outer)), callus(canvas, line[cut], broken)]


def callus(canvas: Canvas, place: Float[ndarray, "2"], broken: Fracture) -> Stroke:
    """New bone round a healing fracture: a spindle of points on a golden-angle spiral, thickest in the middle."""
    count = max(60, int(700 / canvas.pixel**2))
    k = (np.arange(count) + 0.5) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    points = place + np.sqrt(k)[:, None] * np.stack([13 * np.cos(angle), 9 * np.sin(angle)], axis=1)
    volume = 1.2 * broken.step * (1 - k) * np.pi * 13 * 9 / count
    return points, volume


def _scapula(canvas: Canvas, frame: Frame, study: Visit, side: int) -> tuple[list[tuple[float, float]], list[Stroke]]:
    """Outline of the blade, and the strokes of its edges, its spine and the upper arm."""
    upright = not study.bedside
    out, top = frame.half_width + (30 if upright else -8), frame.apex + 12
    corners = [(-24, 0), (-30, 40), (-8, 112), (4, 108), (28, 32), (26, -6)]
    blade = [(side * (out + px), top + py) for px, py in corners]
    spine = canvas.curve([blade[0], (side * (out + 4), top - 10), (side * (out + 48), top - 22)])
    head = (side * (out + 50), top + 4)
    elbow = (120, 120) if upright else (70, 220)
    shaft = canvas.curve([head, (side * (out + 62), top + 60), (side * (out + elbow[0]), top + elbow[1])])
    knob = canvas.curve([(head[0] - side * 4, head[1] - 8), (head[0], head[1]), (head[0] + side * 2, head[1] + 10)])
    edges = canvas.curve([*blade, blade[0]])
    return blade, [
        canvas.stroke(edges, 5.0, 3.5),
        canvas.stroke(spine, 9.0, 4.0),
        canvas.stroke(shaft, 24.0, 1.4 * LONG_BONE),
        canvas.stroke(knob, 44.0, 8.0 * DOME),
    ]


def _spine(canvas: Canvas, frame: Frame, body: Body) -> Plane:
    """Vertebrae from the neck down: body, end plates, pedicles, spinous process; older spines have spurs."""
    shapes = []
    top, number = frame.apex - 75, 0
    while top < frame.base + 90:
        tall, half = 15 + 0.85 * min(number, 14), (15 + 0.75 * min(number, 14)) * (1 + 0.05 * body.aging)
        mid = body.scoliosis * np.sin((top + 120) / 110)
        low, spur, waist = top + tall, half + 3.5 * body.aging, 0.88 * half
        right = [(mid + half, top), (mid + waist, top + tall / 2), (mid + half, low)]
        shapes += [
            [*right, *[(2 * mid - px, py) for px, py in reversed(right)]],
            _box(mid, top, spur, 1.2),
            _box(mid, low, spur, 1.2),
            _box(mid - 0.62 * half, top + 0.42 * tall, 3.0, 0.2 * tall),
            _box(mid + 0.62 * half, top + 0.42 * tall, 3.0, 0.2 * tall),
            _box(mid, top + 0.85 * tall, 2.4, 0.2 * tall),
        ]
        top += tall + 4.2 - 1.5 * body.aging
        number += 1
    return 11 * canvas.polygon(*shapes, shades=(0.6, 0.9, 0.9, 0.95, 0.95, 1.0), soft=0.9)


def _box(x: float, y: float, half: float, tall: float) -> list[tuple[float, float]]:
    return [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]


def vessel_tree(chest: Chest, body: Body, rng: np.random.Generator) -> Plane:
    """Pulmonary vessels: trees that leave the hila, fork, thin out and stop short of the pleura."""
    coarse, fine = [], []
    for x, y in chest.hila.values():
        for calibre, drop in ((1.0, 0), (0.75, 6)):  # arteries, and veins that run a little lower
            branches = _tree(chest, (x, y + drop), calibre * body.vessels, rng)
            coarse += branches[:2]
            fine += branches[2:]
    canvas = chest.canvas
    return canvas.blur(canvas.lay(coarse), 1.8) + canvas.blur(canvas.lay(fine), 0.7)


def _tree(chest: Chest, root: tuple[float, float], calibre: float, rng: np.random.Generator) -> list[Stroke]:
    """One vascular tree, a stroke per generation; radii follow Murray's law (the cubes add up at a fork)."""
    direction, radius = _roots(chest, root[0], rng)
    radius = radius * calibre
    start = np.tile(np.asarray(root, dtype=np.float64), (len(direction), 1))
    t = (np.arange(max(4, int(30 / chest.canvas.pixel))) + 0.5) / max(4, int(30 / chest.canvas.pixel))
    strokes = []
    for generation in range(7):
        length = rng.uniform(16, 30, len(direction)) * 0.90**generation
        bend = direction[:, None] + rng.normal(0, 0.22, len(direction))[:, None] * t
        step = (length / len(t))[:, None]
        path = np.stack([np.cumsum(np.cos(bend) * step, 1), np.cumsum(np.sin(bend) * step, 1)], axis=2) + start[:, None]
        volume = np.pi * (radius[:, None] * (1 - 0.12 * t)) ** 2 * step
        strokes.append((path.reshape(-1, 2), volume.ravel()))
        fork = np.abs(rng.normal(0.58, 0.18, len(direction)))
        share = rng.uniform(0.3, 0.7, len(direction))  # of the flow that turns one way; the larger branch turns less
        start = np.repeat(path[:, -1], 2, axis=0)
        direction = np.stack([bend[:, -1] + fork * (1 - share), bend[:, -1] - fork * share], axis=1).ravel()
        radius = np.stack([radius * share ** (1 / 3), radius * (1 - share) ** (1 / 3)], axis=1).ravel()
    return strokes


def _roots(chest: Chest, x: float, rng: np.random.Generator) -> tuple[Float[ndarray, "n"], Float[ndarray, "n"]]:
    """Directions (radians, 0 to the right, downward positive) and radii (mm) in which vessels leave a hilum."""
    if not chest.frontal:
        return np.linspace(0, 2 * np.pi, 10)[:-1] + rng.normal(0, 0.15, 9), np.full(9, 2.4)
    angles = np.array([-1.25, -0.75, -0.3, 0.1, 0.5, 0.9, 1.25]) + rng.normal(0, 0.1, 7)
    return (angles if x > 0 else np.pi - angles), np.array([3.2, 2.6, 2.4, 2.6, 3.1, 4.1, 3.8])


def _airways(chest: Chest, frame: Frame) -> None:
    """Trachea and main bronchi: air in the mediastinum."""
    canvas = chest.canvas
    carina = frame.y_at(0.33)
    trachea = canvas.curve([(0, frame.apex - 70), (1, frame.apex), (-2, carina)])
    air = [canvas.stroke(trachea, 17.0, 14 * DOME)]
    for side, reach, fall in ((-1, 30, 30), (1, 40, 26)):
        bronchus = canvas.curve(
            [(-2, carina - 3), (side * reach * 0.5, carina + 0.5 * fall), (side * reach, carina + fall)]
        )
        air.append(canvas.stroke(bronchus, 11.0, 9 * DOME))
    chest.body = chest.body - canvas.blur(canvas.lay(air), 1.2)


def _abdomen(chest: Chest, frame: Frame, body: Body, study: Visit, rng: np.random.Generator) -> None:
    """Gas in the stomach under the left dome (with a level when upright) and in the bowel."""
    canvas = chest.canvas
    cx, cy = 0.52 * frame.half_width, frame.dome[1] + 24
    radius = rng.uniform(12, 26)
    gas = canvas.ball(cx, cy, radius, 0.7)
    if not study.bedside:
        gas = gas * rise(cy + rng.uniform(-4, 8) - canvas.y, 2)
    for _ in range(rng.integers(2, 7)):
        gas = gas + 0.8 * canvas.ball(
            rng.uniform(-110, 110), frame.base + rng.uniform(10, 80), rng.uniform(6, 15), rng.uniform(0.6, 1.2)
        )
    chest.body = chest.body - gas * rise(-chest.above - 4, 4) * 0.8
