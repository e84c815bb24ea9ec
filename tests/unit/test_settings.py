"""Settings: from the environment or files, refused by name, secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeline.settings import Settings, SettingsError, load


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_file_can_hold_the_value(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:secret@h/d\n")
    loaded = load({"LIFELINE_DATABASE_URL_FILE": str(tmp_path / "url")})
    assert loaded.database_url.get_secret_value() == "postgresql://u:secret@h/d"
    assert "secret" not in repr(loaded)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"LIFELINE_METRICS_PORT": "many"}, "LIFELINE_METRICS_PORT"),
        ({"LIFELINE_TIMEZONE": "Mars/Olympus"}, "LIFELINE_TIMEZONE"),
        ({"LIFELINE_MQTT_URL": "a", "LIFELINE_MQTT_URL_FILE": "b"}, "LIFELINE_MQTT_URL"),
        ({"LIFELINE_MQTT_URL_FILE": "/nowhere/at/all"}, "LIFELINE_MQTT_URL_FILE"),
        ({"LIFELINE_MQTT_URL": "http://u:secret@h"}, "LIFELINE_MQTT_URL"),
        ({"LIFELINE_MQTT_URL": "mqtt://u:secret@h:port"}, "LIFELINE_MQTT_URL"),
        ({"LIFELINE_DATABASE_URL": "mysql://u:secret@h/d"}, "LIFELINE_DATABASE_URL"),
        ({"LIFELINE_READINGS_RETENTION_DAYS": "10"}, "readings_retention_days"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(environ: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names) as caught:
        load(environ)
    assert "secret" not in str(caught.value)
