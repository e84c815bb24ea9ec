"""From a topic to where its messages lead: a device's points, a Sparkplug edge node, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.ingest.formats.sparkplug import SparkplugTopic, parse_sparkplug_topic
from services.ingest.formats.topics import SPARKPLUG_PREFIX, Format, TopicError, is_ours, parse_topic
from services.ingest.messages import topic_text

if TYPE_CHECKING:
    from services.ingest.formats.model import Reason
    from services.ingest.points import Device

_MOST_ROUTES = 200_000
"""More topics than that are not remembered: a flood of invented ones must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a topic leads to."""

    topic: str
    format: Format | None
    """None where the topic is none of ours."""
    plain: dict[str, int] | None = None
    """Rows of the device's points by code, where the short way may be tried."""
    device: Device | None = None
    sparkplug: SparkplugTopic | None = None
    refusal: tuple[Reason, str] | None = None
    """Reason and detail that everything on this topic is refused for."""


class Routes:
    """Finds routes in one version of the registry, and remembers them."""

    def __init__(self, devices: dict[str, Device]) -> None:
        self._devices = devices
        self._known: dict[bytes, Route] = {}

    def find(self, topic: bytes) -> Route:
        route = self._known.get(topic)
        if route is None:
            route = _find(topic_text(topic), self._devices)
            if len(self._known) >= _MOST_ROUTES:
                self._known.clear()
            self._known[topic] = route
        return route


def _find(topic: str, devices: dict[str, Device]) -> Route:
    try:
        if topic.startswith(SPARKPLUG_PREFIX):
            return Route(topic, "sparkplug", sparkplug=parse_sparkplug_topic(topic))
        if is_ours(topic):
            return Route(topic, "ours")
        parsed = parse_topic(topic)
    except TopicError as error:
        return Route(topic, None, refusal=("bad_topic", str(error)))
    device = devices.get(parsed.device)
    if device is None:
        detail = f"device {parsed.device} is not in the registry"
        return Route(topic, parsed.format, refusal=("unknown_device", detail))
    if device.county != parsed.county:
        detail = f"device {device.code} stands in county {device.county}, the topic says {parsed.county}"
        return Route(topic, parsed.format, refusal=("county_mismatch", detail))
    return Route(topic, parsed.format, device.points if parsed.format == "json" else None, device)
