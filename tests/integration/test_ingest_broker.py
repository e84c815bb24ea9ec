"""Other ways to speak with the broker: TLS with certificates, MQTT 3.1.1, a small receive maximum, wrong passwords."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import trustme

from services.demo import ports
from tests.integration.ingest_rig import Publisher, Rig, count, register
from tests.servers import BrokerServer, Process, need_mosquitto, wait_for


def publish_and_count(rig: Rig, publisher: Publisher, readings: int = 500) -> None:
    for number in range(readings):
        publisher.reading("d1", "p1", number)
    publisher.settle()
    wait_for(lambda: count(rig.database_url) == readings, what="all readings")


def test_mqtt_311(rig: Rig, publisher: Publisher) -> None:
    process = rig.ingest({"LIFELINE_MQTT_PROTOCOL": "3.1.1"})
    publish_and_count(rig, publisher)
    assert process.terminate() == 0
    publisher.reading("d1", "p1", 500)  # the session stays, and what comes meanwhile waits in it
    publisher.settle()
    rig.ingest({"LIFELINE_MQTT_PROTOCOL": "3.1.1"})
    wait_for(lambda: count(rig.database_url) == 501, what="the reading that waited")


def test_small_receive_maximum(rig: Rig, publisher: Publisher) -> None:
    rig.ingest({"LIFELINE_MQTT_RECEIVE_MAXIMUM": "3"})
    publish_and_count(rig, publisher)


def test_without_a_share_group_each_process_takes_everything(rig: Rig, publisher: Publisher) -> None:
    environ = {"LIFELINE_MQTT_SHARE_GROUP": ""}
    processes = [rig.ingest(environ), rig.ingest(environ)]
    publish_and_count(rig, publisher)
    outcomes = ('lifeline_ingest_readings_total{outcome="stored"}', 'lifeline_ingest_readings_total{outcome="repeat"}')

    def seen() -> float:
        return sum(rig.metrics(process)[outcome] for process in processes for outcome in outcomes)

    wait_for(lambda: seen() == 1000, what="both to have seen all")


def test_wrong_password_is_said_and_never_shown(rig: Rig, own_broker: BrokerServer) -> None:
    process = rig.ingest({"LIFELINE_MQTT_URL": own_broker.url.replace("secret", "a-wrong-one")}, ready=False)
    wait_for(lambda: "broker refused the connection" in process.output(), what="the refusal in the log")
    assert process.is_alive()
    assert "a-wrong-one" not in process.output()
    assert process.terminate() == 0


def test_tls_with_client_certificates(
    lifeline_process: Callable[..., Process], database_url: str, tmp_path: Path
) -> None:
    program = need_mosquitto()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, certificate in {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "client": authority.issue_cert("ingest@lifeline.example"),
    }.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    tls, plain = ports.free_port(), ports.free_port()
    (tmp_path / "mosquitto.conf").write_text(
        f"per_listener_settings true\n"
        f"listener {tls} 127.0.0.1\ncafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\n"
        f"keyfile {tmp_path}/server.pem\nrequire_certificate true\nallow_anonymous true\n"
        f"listener {plain} 127.0.0.1\nallow_anonymous true\nuser root\n"
    )
    with subprocess.Popen([program, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL) as broker:
        try:
            register(database_url)
            rig = Rig(lifeline_process, database_url, f"mqtts://localhost:{tls}", tmp_path)
            process = rig.ingest(
                {
                    "LIFELINE_MQTT_CA_FILE": str(tmp_path / "ca.pem"),
                    "LIFELINE_MQTT_CERT_FILE": str(tmp_path / "client.pem"),
                    "LIFELINE_MQTT_KEY_FILE": str(tmp_path / "client.pem"),
                }
            )
            publisher = Publisher(f"mqtt://127.0.0.1:{plain}")
            for number in range(2000):  # enough for TLS records that a selector does not announce
                publisher.reading("d1", "p1", number)
            publisher.publish("lifeline/v1/632521/d1/readings", b"x" * 1_900_000)
            publisher.reading("d1", "p1", 2000)
            publisher.settle()
            wait_for(lambda: count(database_url) == 2001, what="all readings")
            publisher.close()
            # Who does not trust the broker's certificate does not speak to it.
            stranger = rig.ingest({}, ready=False)
            wait_for(lambda: "certificate verify failed" in stranger.output(), what="the refusal of the certificate")
            assert process.is_alive()
        finally:
            broker.terminate()
