"""A chest under the beam: layers of thickness, and the maps that say where in the lung a pixel lies.

The anatomy of a view fills the layers, the findings change them, and `attenuation` adds them up.
Findings speak of places through the maps (`wall`, `above`, `height`, `side`) and through `at`, so
that one description of a finding serves frontal and lateral views.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chexmsn.data.phantom.canvas import Canvas, Plane

# Effective linear attenuation per mm at chest-radiograph energies (about 60-70 keV). Bone and metal are what they
# have more than the soft tissue around them; metal is an effective number, for real metal stops nearly everything.
SOFT, BONE, METAL = 0.0180, 0.034, 0.30
LUNG = 0.21  # density of inflated lung relative to soft tissue


@dataclass
class Chest:
    """The layers (mm along the beam unless said otherwise) and maps of one view."""

    canvas: Canvas
    body: Plane  # soft tissue, were there no lungs
    cavity: Plane  # inside of the rib cage
    mediastinum: Plane  # soft tissue of heart and great vessels within the cavity
    lung: Plane  # share of the remaining cavity that is lung (the rest is abdomen)
    density: Plane  # of the lung relative to soft tissue: 0 is air, 1 is airless lung or fluid
    vessels: Plane  # soft tissue within the lung
    bone: Plane
    metal: Plane
    wall: Plane  # map: mm inward from the chest wall
    above: Plane  # map: mm above the diaphragm
    height: Plane  # map: 0 at the apex, 1 at the costophrenic angle
    side: Callable[[int], Plane]  # share of the lung that belongs to a side (+1 is the patient's left)
    at: Callable[[int, float, float], tuple[float, float]]  # (side, height, 0 medial .. 1 wall) -> x, y in mm
    hila: dict[int, tuple[float, float]]
    frontal: bool

    @property
    def air_path(self) -> Plane:
        """Path through the lungs in mm."""
        return np.maximum(self.cavity - self.mediastinum, 0) * self.lung

    def fill(self, share: Plane) -> None:
        """Replace a share of the aerated lung by fluid or airless tissue."""
        self.density = self.density + (1 - self.density) * np.clip(share, 0, 1)

    def attenuation(self) -> Plane:
        """The line integral of the attenuation coefficient: the image is its negative exponential."""
        air = self.air_path * (1 - self.density)
        inside = self.vessels * (1 - self.density) * np.minimum(self.air_path / 25, 1)
        return np.maximum(SOFT * (self.body - air + inside) + BONE * self.bone + METAL * self.metal, 0)
