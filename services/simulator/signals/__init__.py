"""Signals: what each kind of point would measure, vectorised over many readings at once."""

from services.simulator.signals import atmosphere, drains, gas, heating, structures, water
from services.simulator.signals.scene import Scene, Signal, Stresses

SIGNALS: dict[str, Signal] = (
    water.SIGNALS | gas.SIGNALS | heating.SIGNALS | drains.SIGNALS | structures.SIGNALS | atmosphere.SIGNALS
)
"""Every signal by the name that blueprints use."""

__all__ = ["SIGNALS", "Scene", "Signal", "Stresses"]
