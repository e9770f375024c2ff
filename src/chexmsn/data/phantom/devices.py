"""Support Devices: leads, tubes, lines, pacemakers, wires left by surgery."""

from collections.abc import Callable

import numpy as np

from chexmsn.data.phantom.canvas import Plane
from chexmsn.data.phantom.chest import Chest

Device = Callable[[Chest, np.random.Generator], Plane]


def electrodes(chest: Chest, rng: np.random.Generator) -> Plane:
    """Adhesive ECG electrodes with their cables, lying on the skin."""
    canvas, strokes, pads = chest.canvas, [], chest.canvas.empty()
    exit_x, exit_y = int(rng.choice([-1, 1])) * 190, rng.uniform(60, 150)
    for _ in range(int(rng.integers(3, 6))):
        x, y = rng.uniform(-115, 115), rng.uniform(-95, 110)
        pads += 0.16 * canvas.ball(x, y, 4.5)
        way = [
            (x, y),
            (x + rng.normal(0, 25), y + rng.uniform(15, 45)),
            (exit_x * rng.uniform(0.5, 0.8), y + rng.uniform(20, 70)),
            (exit_x, exit_y),
        ]
        strokes.append(canvas.stroke(canvas.curve(way), 2.0, 1.1))
    return canvas.lay(strokes) + pads


def breathing_tube(chest: Chest, rng: np.random.Generator) -> Plane:
    """Endotracheal tube: two faint walls and a dense stripe, ending above the carina."""
    canvas = chest.canvas
    x, tip = chest.at(1, 0.16 + rng.uniform(0, 0.10), 0.0)
    x = 0.0 if chest.frontal else x
    way = canvas.curve([(x + rng.normal(2, 2), tip - 170), (x + 3, tip - 70), (x, tip)])
    tube = np.array([1.4, 0.5, 0.3, 0.3, 2.4, 0.3, 0.5, 1.4])
    return canvas.lay([canvas.stroke(way, 10.0, tube)])


def feeding_tube(chest: Chest, rng: np.random.Generator) -> Plane:
    """Nasogastric tube: along the gullet, through the diaphragm, into the stomach."""
    canvas = chest.canvas
    x0 = rng.normal(4, 3) if chest.frontal else chest.at(1, 0.5, 0.68)[0]
    low = chest.at(1, 1.0, 0.3)[1]
    way = canvas.curve(
        [
            (x0, -260),
            (x0 + 2, -120),
            (x0 + rng.normal(0, 3), 0),
            (x0 + 8, low - 30),
            (x0 + 32, low + 12),
            (x0 + 58, low + 34),
        ]
    )
    return canvas.lay([canvas.stroke(way, 4.0, np.array([1.3, 0.7, 0.7, 1.3]))])


def central_line(chest: Chest, rng: np.random.Generator) -> Plane:
    """Central venous catheter from the neck or the arm to the upper vena cava."""
    canvas = chest.canvas
    tip = (
        -25 + rng.normal(0, 2) if chest.frontal else chest.at(1, 0.4, 0.4)[0],
        chest.at(1, rng.uniform(0.33, 0.48), 0.0)[1],
    )
    top = chest.at(1, 0.0, 0.0)[1]
    if rng.random() < 0.5:
        way = [(-34, top - 75), (-31, top - 10), (-25, top + 35), tip]
    else:
        side = int(rng.choice([-1, 1]))
        way = [
            (side * 195, top + 95),
            (side * 140, top + 22),
            (side * 85, top + 5),
            (side * 35, top + 24),
            (-24, top + 48),
            tip,
        ]
    return canvas.lay([canvas.stroke(canvas.curve(way), 2.6, 1.9)])


def pacemaker(chest: Chest, rng: np.random.Generator) -> Plane:
    """Generator under the collar bone; leads through the vena cava to atrium and ventricle."""
    canvas = chest.canvas
    x, y = chest.at(1, 0.12, 0.80)
    corners = [(-19, -10), (-10, -18), (10, -18), (19, -10), (19, 8), (8, 18), (-8, 18), (-19, 8)]
    case = canvas.polygon([(x + a, y + b) for a, b in corners], soft=1.0)
    can = 4.2 * case + 2.0 * canvas.polygon([(x - 12, y - 2), (x + 12, y - 2), (x + 11, y + 11), (x - 11, y + 11)])
    top, low = chest.at(1, 0.10, 0.0)[1], chest.at(1, 0.80, 0.0)[1]
    apex = (chest.at(1, 0.74, 0.0)[0] * 0.78, low - 6)
    strokes = []
    for end in [apex, (-24, low - 45)][: int(rng.integers(1, 3))]:
        way = [
            (x - 12, y - 4),
            (x - 35, top - 4),
            (x - 62, top - 2),
            (-18, top + 22),
            (-27, top + 70),
            (-22, low - 35),
            end,
        ]
        strokes.append(canvas.stroke(canvas.curve(way), 2.6, 2.6))
        strokes.append(canvas.stroke(canvas.curve([end, (end[0] + 5, end[1] + 2)]), 3.5, 4.0))
    return canvas.lay(strokes) + can


def sternal_wires(chest: Chest, rng: np.random.Generator) -> Plane:
    """Wire loops that close the breast bone after heart surgery, with their twisted ends."""
    canvas, strokes = chest.canvas, []
    angle = np.linspace(0, 2 * np.pi, 15)
    for height in np.linspace(0.14, 0.72, 6):
        y = chest.at(1, float(height), 0.0)[1] + rng.normal(0, 1.5)
        x = rng.normal(0, 1.5) if chest.frontal else chest.at(1, float(height), 0.02)[0] - 14
        loop = np.stack([x + 8 * np.cos(angle), y + (4 + rng.normal(0, 0.6)) * np.sin(angle)], axis=1)
        strokes += [
            canvas.stroke(canvas.curve(loop), 1.8, 3.2),
            canvas.stroke(canvas.curve([(x, y), (x + 3, y + 4)]), 2.4, 4.0),
        ]
    return canvas.lay(strokes)


def chest_drain(chest: Chest, rng: np.random.Generator) -> Plane:
    """Drain through the lateral wall towards the apex, with a dense line and a gap at its side hole."""
    canvas, side = chest.canvas, int(rng.choice([-1, 1]))
    (x1, y1), (x2, y2) = chest.at(side, 0.70, 1.25), chest.at(side, 0.16, 0.45)
    middle = chest.at(side, 0.45, 0.90)
    way = canvas.curve([(x1 + side * 45, y1 + 22), (x1, y1), middle, (x2, y2)])
    gap = int(0.78 * len(way))
    stripe = [canvas.stroke(part, 2.2, 2.2) for part in (way[:gap], way[gap + max(2, len(way) // 40) :])]
    return canvas.lay([*stripe, canvas.stroke(way, 8.0, np.array([1.2, 0.4, 0.3, 0.3, 0.4, 1.2]))])


DEVICES: tuple[Device, ...] = (
    electrodes,
    breathing_tube,
    feeding_tube,
    central_line,
    pacemaker,
    sternal_wires,
    chest_drain,
)


def implant(chest: Chest, severity: float, bedside: bool, rng: np.random.Generator) -> None:
    """Put one to four devices on and into a chest; the bedside has more wires and tubes."""
    weight = np.array([3, 2, 2, 3, 1, 1, 1]) if bedside else np.array([0.5, 0.2, 0.3, 2.0, 3, 2.5, 0.7])
    count = 1 + round(severity * (2.5 if bedside else 1.2))
    for number in rng.choice(len(DEVICES), size=count, replace=False, p=weight / weight.sum()):
        chest.metal = chest.metal + DEVICES[number](chest, rng)
