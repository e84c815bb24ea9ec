"""``lifeline demo``: the whole service on one machine, with a database and a broker of its own."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

import lifeline
from lifeline.settings import load
from services.demo import broker as brokers
from services.demo import launch, logs, services
from services.demo.directory import DemoDirectory, DirectoryError
from services.demo.ports import HOST, NoFreePortError
from services.demo.postgres import Postgres, PostgresError
from services.demo.status import Figures, Teller
from services.demo.supervisor import NotReadyError, Supervisor

WATCH_EVERY_S = 0.1
TRIM_EVERY_S = 60.0
SECOND_SIGNAL_S = 1.0
"""A signal this soon after the first is its echo (make and the terminal may both send one)."""

_PORT = click.IntRange(0, 65535)
_FAILURES = (
    DirectoryError,
    NoFreePortError,
    PostgresError,
    NotReadyError,
    brokers.BrokerError,
    launch.LaunchError,
    services.CommandError,
)


class Wish(NamedTuple):
    """What the person asked for. A port of None is the usual one, 0 a free one."""

    mqtt_port: int | None
    metrics_port: int | None
    database_port: int | None
    broker: Literal["auto", "mosquitto", "amqtt"]
    simulate: bool
    points: int | None


class Stopped(BaseException):
    """A signal asked us to end. No ``Exception``, so that nothing on the way takes it for a failure."""


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lifeline"),
    show_default=True,
    help="Where everything is kept; a later start goes on with the same data.",
)
@click.option("--api-port", type=_PORT, help="Port of the API and the operations view [default: 8000].")
@click.option("--mqtt-port", type=_PORT, help="Port of the broker [default: 1883].")
@click.option("--metrics-port", type=_PORT, help="Port of ingest's /metrics [default: a free one].")
@click.option("--database-port", type=_PORT, help="Port of PostgreSQL [default: a free one].")
@click.option("--no-simulator", is_flag=True, help="Start without simulated points and readings: bring your own.")
@click.option("--points", type=click.IntRange(min=1), help="How many points to simulate [default: about 1,000].")
@click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "amqtt"]),
    default="auto",
    show_default=True,
    help="auto: mosquitto where this machine has it, else amqtt.",
)
def main(data_dir: Path, api_port: int | None, no_simulator: bool, **wishes: Any) -> None:
    """Start the whole service on this machine: database, broker, ingest, and a simulated prefecture.

    Ports are remembered in the data directory; 0 takes a free one. Ctrl-C stops everything cleanly. When all is ready,
    DIR/demo.json tells programs where to find it.
    """
    teller, supervisor, directory, failure = Teller(), Supervisor(), None, None
    _on_signals(_raise_stopped)
    try:
        directory = DemoDirectory(data_dir)
        if api_port:
            directory.remember("port.api", api_port)  # for the API, which joins with a later version
        run(directory, Wish(simulate=not no_simulator, **wishes), supervisor, teller)
    except Stopped:
        pass
    except _FAILURES as error:
        failure = str(error)
    _stop(supervisor, teller)
    if directory is not None:
        directory.close()
    if failure is not None:
        raise click.ClickException(failure)


def run(directory: DemoDirectory, wish: Wish, supervisor: Supervisor, teller: Teller) -> None:
    """Start everything in order, each part once the one before serves, then watch over it until a signal.

    Raises :class:`Stopped` at the signal and one of ``_FAILURES`` where something cannot be started.
    """
    began = time.monotonic()
    log = directory.logs
    kind = brokers.choose(wish.broker)
    account = launch.server_account()
    metrics_port = directory.port("metrics", wish.metrics_port, 0, "--metrics-port")
    database = Postgres(
        directory.path / "postgres",
        directory.port("database", wish.database_port, 0, "--database-port"),
        directory.secret("postgres"),
        directory.secret("database"),
        log / "postgres.log",
        account,
    )
    broker = brokers.Broker(
        kind,
        directory.path / "broker",
        directory.port("mqtt", wish.mqtt_port, 1883, "--mqtt-port"),
        directory.secret("mqtt"),
        log / "broker.log",
        account,
    )
    environ = services.environment(
        {
            "LIFELINE_DATABASE_URL": database.url,
            "LIFELINE_MQTT_URL": broker.url,
            "LIFELINE_MQTT_PROTOCOL": broker.protocol,
            "LIFELINE_MQTT_SHARE_GROUP": "lifeline-ingest" if broker.has_shared_subscriptions else "",
            "LIFELINE_SPOOL_DIR": str(directory.path / "spool"),
            "LIFELINE_METRICS_HOST": HOST,
            "LIFELINE_METRICS_PORT": str(metrics_port),
        }
    )
    settings = load(environ)
    metrics_url = f"http://{HOST}:{metrics_port}/metrics"
    ingest = services.ingest(environ, metrics_url, log / "ingest.log")

    launch.make_directory(directory.path / "spool", None)  # before ingest does, so that nobody else can read it
    teller.say(f"Lifeline, with its data in {directory.path}")
    with teller.step(f"PostgreSQL on port {database.port}"):
        database.initialise()
        supervisor.add(database.program()).wait_ready()
    with teller.step("database schema"):
        services.run(["db", "upgrade"], environ, log / "upgrade.log")
    with teller.step(f"{broker.kind} (MQTT {broker.protocol}) on port {broker.port}"):
        supervisor.add(broker.program()).wait_ready()
    if wish.broker == "auto" and kind != "mosquitto":
        teller.say("      mosquitto is not on this machine; amqtt stands in for it:")
    for line in broker.limits:
        teller.say(f"      {line}")
    if wish.simulate:
        options = _simulation(directory, wish)
        _seed(directory, options, environ, teller)
    with teller.step("ingest"):
        supervisor.add(ingest).wait_ready()
    if wish.simulate:
        with teller.step("simulator"):
            supervisor.add(services.simulator(options, environ, log / "simulator.log")).wait_ready()

    demo = {
        "pid": os.getpid(),
        "mqtt_url": broker.url,
        "database_url": database.url,
        "metrics": {"ingest": metrics_url},
    }
    directory.publish({**demo, "pids": supervisor.pids()})
    teller.say(
        f"Ready after {time.monotonic() - began:.1f} s. Ctrl-C stops it; the next start goes on with the same data."
    )
    teller.say(f"  addresses and passwords   {directory.path / 'demo.json'}")
    teller.say(f"  metrics of ingest         {metrics_url}")
    teller.say(f"  logs                      {log}")
    _watch(directory, demo, supervisor, Figures(teller, settings), teller)


def _simulation(directory: DemoDirectory, wish: Wish) -> list[str]:
    if wish.points is not None:
        directory.remember("points", wish.points)
    points = directory.recall("points")
    return [] if points is None else ["--points", str(points)]


def _seed(directory: DemoDirectory, options: Sequence[str], environ: Mapping[str, str], teller: Teller) -> None:
    """Register what the simulator will publish, unless this very program did so before in this directory."""
    fingerprint = _fingerprint(options)
    if directory.recall("registry") == fingerprint:
        return
    file, log = directory.path / "registry.json", directory.logs / "registry.log"
    launch.write_private(file, "")  # there before the simulator fills it, so that nobody else can read it
    with teller.step("registry of the simulated prefecture"):
        services.run(["simulate", *options, "--write-registry", str(file)], environ, log)
        services.run(["registry", "import", str(file)], environ, log)
    directory.remember("registry", fingerprint)


def _fingerprint(options: Sequence[str]) -> str:
    """Changes when the simulated registry may: with its options, or any file that it is made from."""
    digest = hashlib.sha256(repr(list(options)).encode())
    for root in (Path(__file__).parent.parent / "simulator", Path(lifeline.__file__).parent):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _watch(
    directory: DemoDirectory, demo: Mapping[str, Any], supervisor: Supervisor, figures: Figures, teller: Teller
) -> None:
    trim_due, pids = 0.0, supervisor.pids()
    while True:
        now = time.monotonic()
        told = supervisor.revive()
        if pids != supervisor.pids():
            pids = supervisor.pids()
            directory.publish({**demo, "pids": pids})
        for line in told:
            teller.say(f"  {line}")
        if now >= trim_due:
            trim_due = now + TRIM_EVERY_S
            for path in directory.logs.glob("*.log"):
                logs.trim(path)
        figures.tick(now)
        time.sleep(WATCH_EVERY_S)


def _stop(supervisor: Supervisor, teller: Teller) -> None:
    """Stop all in reverse order. One more signal, and what is left is killed."""
    began = time.monotonic()

    def hurry(_number: int, _frame: object) -> None:
        if time.monotonic() - began > SECOND_SIGNAL_S:
            supervisor.kill()

    _on_signals(hurry)
    if supervisor.children:
        teller.say("Stopping (once more to stop at once) …")
    supervisor.stop(lambda name, seconds: teller.say(f"  {name} stopped  {seconds:.1f} s"))


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _raise_stopped(_number: int, _frame: object) -> None:
    raise Stopped


if __name__ == "__main__":
    main()
