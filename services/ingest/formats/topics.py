"""Which format a topic carries, and for which county and device (contract, MQTT)."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Format = Literal["json", "senml", "status", "sparkplug", "ours"]

FILTERS = ("lifeline/v1/#",)
"""What ingest processes share among them. All of it, so that a misspelt topic is refused and not just lost."""
SPARKPLUG_PREFIX = "spBv1.0/"
SPARKPLUG_FILTER = SPARKPLUG_PREFIX + "#"
"""What one ingest process takes alone, because an edge node's messages only make sense in their order."""

_FORMATS: dict[str, Format] = {"readings": "json", "senml": "senml", "status": "status"}
_COUNTY = re.compile(r"[0-9]{6}")
_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class DeviceTopic(NamedTuple):
    """``lifeline/v1/{county}/{device}/{readings|senml|status}``, taken apart."""

    format: Format
    county: str
    device: str


class TopicError(ValueError):
    """The topic is none of the contract's; the text says which part, and what would be right."""


def is_ours(topic: str) -> bool:
    """Whether Lifeline itself publishes there: ``lifeline/v1/{county}/alarms/…``."""
    return topic.split("/")[3:4] == ["alarms"]


def parse_topic(topic: str) -> DeviceTopic:
    """Take a device topic apart. Raises :class:`TopicError`. Sparkplug topics are not for this function."""
    levels = topic.split("/")
    if len(levels) != 5 or levels[:2] != ["lifeline", "v1"] or levels[4] not in _FORMATS:
        raise TopicError("the topic is not lifeline/v1/{county}/{device}/readings, …/senml or …/status")
    _, _, county, device, kind = levels
    if not _COUNTY.fullmatch(county):
        raise TopicError(f"county {county[:40]!r} in the topic is not a GB/T 2260 code of 6 digits")
    if not _CODE.fullmatch(device):
        raise TopicError(f"device {device[:80]!r} in the topic is not 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    return DeviceTopic(_FORMATS[kind], county, device)
