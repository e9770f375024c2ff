"""What disease adds to a chest: functions of the chest, a severity in (0, 1], a side and a generator of their own.

Findings that change shapes (Cardiomegaly, Enlarged Cardiomediastinum, Fracture, the volume loss of Atelectasis) are
drawn by the anatomy of the view; here are those that are laid over it.
"""

from collections.abc import Callable

import numpy as np

from chexmsn.data.phantom.canvas import Stroke, rise
from chexmsn.data.phantom.chest import Chest

Finding = Callable[[Chest, float, int, np.random.Generator], None]


def effusion(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Pleural Effusion: fluid fills the angle; its surface climbs along the chest wall as a meniscus."""
    depth = 18 + 80 * severity
    fall = chest.canvas.y - chest.at(side, 1.0, 0.5)[1]
    surface = depth + 45 * np.exp(-np.maximum(chest.wall, 0) / 14) * (0.6 + 0.6 * severity) - 14
    fluid = rise(fall + surface, 9) * chest.side(side)
    chest.lung = chest.lung * (1 - 0.35 * fluid)  # fluid also hides the dome
    chest.fill(fluid * (0.80 + 0.2 * severity))


def pneumothorax(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Pneumothorax: black rim without markings over the apex and down the side, bounded by the pleural line."""
    gap = (14 + 44 * severity) * np.exp(-((np.maximum(chest.height, 0) / (0.45 + 0.4 * severity)) ** 2))
    inside = chest.wall - gap - (4 + 8 * severity) * rise(1 - chest.height, 0.2)
    rim = rise(-inside, 2.0) * chest.side(side)
    chest.density = chest.density * (1 - 0.96 * rim)
    chest.vessels = chest.vessels * (1 - rim)
    pleura = np.exp(-0.5 * (inside / 1.4) ** 2) * chest.side(side) * rise(chest.above - 6, 6)
    chest.vessels = chest.vessels + 6.0 * pleura
    lung = (1 - rim) * chest.side(side)
    chest.density = chest.density + 0.16 * severity * lung * (
        1 - chest.density
    )  # the lung that is left is smaller and denser


def lesion(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Lung Lesion: one to three nodules or a mass, round and slightly lobulated."""
    total = chest.canvas.empty()
    for number in range(1 if severity < 0.6 else int(rng.integers(1, 4))):
        x, y = chest.at(side if number == 0 else -side, rng.uniform(0.22, 0.72), rng.uniform(0.30, 0.78))
        radius = (8 + 17 * severity) * (1.0 if number == 0 else 0.6)
        for _ in range(4):
            shift = rng.normal(0, 0.22 * radius, 2)
            total = np.maximum(total, chest.canvas.ball(x + shift[0], y + shift[1], radius * rng.uniform(0.75, 0.95)))
    chest.vessels = chest.vessels + 1.5 * chest.canvas.blur(total, 1.0)


def consolidation(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Consolidation: much of a lobe turns dense, up to the fissure; the bronchi in it stay open and dark."""
    upper = rng.random() < 0.4
    tilt = rng.uniform(-0.15, 0.15)
    fissure = (chest.height - 0.46) * 200 + tilt * chest.wall + 6 * chest.canvas.texture(rng, 12.0)
    x, y = chest.at(side, 0.30 if upper else 0.68, 0.45)
    extent = 26 + 16 * severity
    lobe = rise(-fissure if upper else fissure, 8.0) * chest.canvas.glow(x, y, 1.5 * extent, 1.25 * extent)
    ragged = 1 + 0.25 * chest.canvas.texture(rng, 6.0)
    dense = np.clip(1.6 * lobe * ragged, 0, 1) * chest.side(side) * (0.30 + 0.42 * severity)
    open_bronchi = np.clip(chest.vessels / 7, 0, 1)  # they run beside the vessels
    chest.fill(dense * (1 - 0.30 * open_bronchi))
    chest.vessels = chest.vessels * (1 - np.clip(1.4 * dense, 0, 1))


def pneumonia(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Pneumonia: fluffy patches of uneven density that run together, mostly in one lower zone."""
    patches = chest.canvas.empty()
    for number in range(int(5 + 6 * severity)):
        here = side if number % 4 else -side
        x, y = chest.at(here, float(np.clip(rng.normal(0.62, 0.14), 0.2, 0.9)), rng.uniform(0.15, 0.85))
        patches += chest.canvas.glow(x, y, rng.uniform(7, 14), rng.uniform(6, 12)) * rng.uniform(0.6, 1.0)
    fluffy = np.clip(1 + 0.40 * chest.canvas.texture(rng, 4.0), 0.2, 2)
    chest.fill(np.clip(patches, 0, 1.1) * fluffy * (0.16 + 0.28 * severity))


def edema(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Edema: bat wings of haze around the hila, engorged blurred vessels, cuffed bronchi, Kerley lines."""
    canvas, wings, strokes = chest.canvas, chest.canvas.empty(), []
    for here, (x, y) in chest.hila.items():
        wings += canvas.glow(x + here * 22 * chest.frontal, y + 14, 36, 48)
        for _ in range(int(8 + 14 * severity)):  # Kerley B: short, horizontal, at the wall of the lower zones
            height = rng.uniform(0.55, 0.93)
            outer, inner = chest.at(here, height, 0.99), chest.at(here, height, 0.99 - rng.uniform(0.14, 0.22))
            strokes.append(canvas.stroke(canvas.curve([outer, inner]), 1.6, 5.0))
        spots = [(rng.normal(here * 12, 10), rng.normal(5, 14), rng.uniform(3.5, 5.0)) for _ in range(4)]
        strokes += [_ring(chest, x + right, y + down, radius) for right, down, radius in spots]
    reticular = 1 + 0.07 * np.clip(chest.canvas.texture(rng, 2.0), -2, 2)
    haze = reticular * (np.clip(wings, 0, 1.2) * (0.12 + 0.36 * severity) + 0.06 * severity)
    engorged = canvas.blur(chest.vessels, 1.5) * (1.35 + 0.5 * severity)
    chest.vessels = engorged + (0.5 + 0.8 * severity) * canvas.blur(canvas.lay(strokes), 0.6)
    chest.fill(haze)


def _ring(chest: Chest, x: float, y: float, radius: float) -> Stroke:
    angle = np.linspace(0, 2 * np.pi, 13)
    return chest.canvas.stroke(
        chest.canvas.curve(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)), 2.2, 7.0
    )


def atelectasis(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Atelectasis: plates of airless lung above the raised diaphragm, and a basal wedge when there is much of it."""
    strokes = []
    for number in range(int(2 + 3 * severity)):
        height = 0.58 + 0.075 * number + rng.uniform(-0.02, 0.02)
        start, end = (
            chest.at(side, height, rng.uniform(0.05, 0.25)),
            chest.at(side, height + rng.uniform(-0.07, 0.07), rng.uniform(0.7, 0.95)),
        )
        middle = (np.asarray(start) + end) / 2 + [0, rng.uniform(-5, 3)]
        strokes.append(chest.canvas.stroke(chest.canvas.curve([start, middle, end]), rng.uniform(3.5, 6.5), 20.0))
    chest.vessels = chest.vessels + (0.5 + 0.8 * severity) * chest.canvas.blur(chest.canvas.lay(strokes), 0.8)
    near = np.exp(-np.maximum(chest.above, 0) / (7 + 9 * severity)) * chest.side(side)
    chest.fill(near * (0.15 + 0.35 * severity))


def opacity(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Lung Opacity without a better name: an ill-defined veil over a zone."""
    x, y = chest.at(side, rng.uniform(0.3, 0.65), rng.uniform(0.4, 0.6))
    veil = chest.canvas.glow(x, y, 24 + 10 * severity, 28 + 12 * severity) * (1 + 0.15 * chest.canvas.texture(rng, 4.0))
    chest.fill(veil * (0.18 + 0.34 * severity))


def pleural_other(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> None:
    """Pleural Other: thickened pleura along the wall, a cap over the apex, calcified plaques."""
    low, high = rng.uniform(0.25, 0.4), rng.uniform(0.75, 0.9)
    span = rise((chest.height - low) * 200, 20) * rise((high - chest.height) * 200, 20)
    band = rise(10 + 14 * severity - chest.wall, 3.0) * span
    cap = rise(8 + 12 * severity - chest.wall, 4.0) * rise((0.16 - chest.height) * 200, 10)
    thick = np.maximum(band, cap) * chest.side(side)
    chest.fill(thick * (0.60 + 0.40 * severity))
    plaques = chest.canvas.empty()
    for _ in range(int(3 + 4 * severity)):
        x, y = chest.at(side, rng.uniform(0.35, 0.85), rng.uniform(0.45, 0.92))
        plaques += chest.canvas.glow(x, y, rng.uniform(5, 10), rng.uniform(3, 6))
    flecked = np.clip(1 + 0.7 * chest.canvas.texture(rng, 1.5), 0, 2)
    chest.bone = chest.bone + (2.5 + 8.0 * severity) * np.clip(plaques, 0, 1) * flecked * chest.lung


FINDINGS: dict[str, Finding] = {
    "Edema": edema,
    "Pneumonia": pneumonia,
    "Lung Opacity": opacity,
    "Consolidation": consolidation,
    "Lung Lesion": lesion,
    "Atelectasis": atelectasis,
    "Pleural Other": pleural_other,
    "Pneumothorax": pneumothorax,
    "Pleural Effusion": effusion,
}
