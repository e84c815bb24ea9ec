"""``lifeline simulate``: a simulated prefecture, or a recorded CSV, published to a broker."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import click

from lifeline.settings import Settings, load
from services.simulator.blueprints import SMALLEST

READINGS_PER_POINT_AND_S = 0.07
"""Default rate: 1,000 points give 70 readings/s, so that each shows a new value every quarter of a minute."""
FLUSH_S = 1.2
"""How long a stopping simulator waits for acknowledgements; with the rest of the way out it stays below 2 s."""


class _OrderType(click.ParamType[str]):
    name = "NAME[:COUNTY][@SECONDS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from services.simulator.scenarios import ScenarioError, parse_order

        try:
            parse_order(str(value))
        except ScenarioError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class _MomentType(click.ParamType[datetime]):
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2016-07-04T00:00 or 2016-07-04T00:00+08:00", param, ctx)


class _SpeedType(click.ParamType[float]):
    name = "FACTOR|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        # 0 stands for max within this module.
        if isinstance(value, float):
            return value
        try:
            speed = 0.0 if value == "max" else float(value)
        except ValueError:
            speed = -1.0
        if value != "max" and not 0 < speed < 1e9:
            self.fail(f"{value!r} is neither max nor a factor above 0, such as 60", param, ctx)
        return speed


@click.command("simulate", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--mqtt-url", help="The broker (default: LIFELINE_MQTT_URL): mqtt://user:password@host:port or mqtts://…")
@click.option("--protocol", type=click.Choice(["5", "3.1.1"]), help="MQTT version (default: LIFELINE_MQTT_PROTOCOL).")
@click.option(
    "--in-flight",
    type=click.IntRange(1, 65535),
    default=100,
    show_default=True,
    help="Most messages sent and not yet acknowledged; the broker may allow fewer.",
)
@click.option(
    "--backlog-mb",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Most MiB kept while the broker is away; then the oldest messages are dropped and counted.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed makes the same prefecture."
)
@click.option(
    "--points",
    type=click.IntRange(1, 200_000),
    default=1000,
    show_default=True,
    help=f"About how many points; never fewer than {SMALLEST}, one site of every kind in every county.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Readings per second of all points together; a "
    "point of a shorter catalogue interval has more of them. [default: 0.07 per point]",
)
@click.option("--real-intervals", is_flag=True, help="Report as often as the catalogue expects (minutes to a day).")
@click.option(
    "--faults",
    type=click.FloatRange(0, 0.04),
    default=0.002,
    show_default=True,
    help="Share of points at fault at any time: impossible values, flat lines, spikes.",
)
@click.option(
    "--scenario",
    "scenarios",
    type=_OrderType(),
    multiple=True,
    help="Play a scenario, in that county, after so many seconds; repeatable.",
)
@click.option(
    "--scenario-speed",
    type=click.FloatRange(0, 1000, min_open=True),
    default=1.0,
    show_default=True,
    help="How fast the minutes of scenarios pass.",
)
@click.option("--list-scenarios", is_flag=True, help="Tell what scenarios there are, and end.")
@click.option("--trigger", type=_OrderType(), help="Start a scenario in the simulators running at the broker, and end.")
@click.option(
    "--write-registry",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the registry document (.json, .yaml) for `lifeline registry import`, and end.",
)
@click.option(
    "--history",
    "history_days",
    type=click.FloatRange(0, 400),
    default=0.0,
    help="First publish so many past days, at the catalogue's intervals, 100 readings per message.",
)
@click.option(
    "--history-rate",
    type=click.FloatRange(100),
    default=20_000.0,
    show_default=True,
    help="Most readings of history per second.",
)
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@click.option("--count", type=click.IntRange(1), help="End after so many readings.")
@click.option(
    "--replay",
    "replay_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Publish a recorded CSV instead; needs --mapping.",
)
@click.option(
    "--mapping",
    "mapping_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Which column is which point (YAML; examples lie in services/simulator/mappings).",
)
@click.option("--from", "begin", type=_MomentType(), help="Replay from this time on, as written in the file.")
@click.option("--to", "end", type=_MomentType(), help="Replay up to this time (not included).")
@click.option(
    "--speed",
    type=_SpeedType(),
    default="max",
    show_default=True,
    help="How fast recorded time passes; max: as fast as the broker acknowledges.",
)
@click.option("--sort", is_flag=True, help="Replay by time rather than in the file's own order.")
@click.option("--shift-to-now", is_flag=True, help="Move all times so that the newest row is now.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rows per message.")
@click.pass_context
def main(ctx: click.Context, /, **options: Any) -> None:
    """Publish simulated or replayed (CSV) readings to a broker.

    Without options: a prefecture of five counties and every sector, some 1,000 points, 70 readings a second, with
    weather, NB-IoT batches, repeats and sensor faults. SIGTERM or Ctrl-C ends it within 2 s.
    """
    from lifeline import logs

    settings = load()
    if options["list_scenarios"]:
        from services.simulator.scenarios import describe

        click.echo(describe())
        return
    logs.configure(settings, "simulator")
    if (options["replay_file"] is None) != (options["mapping_file"] is None) and not (
        options["mapping_file"] and options["write_registry"]
    ):
        raise click.UsageError("--replay and --mapping go together: name the CSV and the YAML that explains it")
    if options["write_registry"] is not None:
        _write_registry(options)
    elif options["trigger"] is not None:
        _trigger(settings, options)
    elif options["replay_file"] is not None:
        ctx.exit(_replay(settings, options))
    else:
        ctx.exit(_live(settings, options))


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _bad(option: str, error: Exception) -> NoReturn:
    raise click.BadParameter(str(error), param_hint=option) from error


def _publisher(settings: Settings, options: dict[str, Any], name: str, **more: Any) -> Any:
    from services.simulator.publish import BrokerError, Publisher

    try:
        return Publisher(_broker(settings, options), name, **more)
    except BrokerError as error:
        _bad("LIFELINE_MQTT_CA_FILE, LIFELINE_MQTT_CERT_FILE", error)


def _broker(settings: Settings, options: dict[str, Any]) -> Any:
    from services.simulator.publish import BrokerError, parse_broker

    try:
        return parse_broker(
            options["mqtt_url"] or settings.mqtt_url.get_secret_value(),
            protocol=options["protocol"] or settings.mqtt_protocol,
            ca_file=settings.mqtt_ca_file,
            cert_file=settings.mqtt_cert_file,
            key_file=settings.mqtt_key_file,
            keepalive_s=settings.mqtt_keepalive_s,
        )
    except BrokerError as error:
        _bad("--mqtt-url" if options["mqtt_url"] else "LIFELINE_MQTT_URL", error)


def _write_registry(options: dict[str, Any]) -> None:
    from services.simulator.mapping import MappingError, load_mapping
    from services.simulator.prefecture import build, write_document

    path: Path = options["write_registry"]
    try:
        if options["mapping_file"] is not None:
            document = load_mapping(options["mapping_file"]).document()
        else:
            document = build(options["seed"], options["points"]).document()
    except MappingError as error:
        _bad("--mapping", error)
    try:
        write_document(document, path)
    except (OSError, ValueError) as error:
        _bad("--write-registry", error)
    counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in document.items())
    click.echo(f"{path}: {counts}; take it in with: lifeline registry import {path}")


def _trigger(settings: Settings, options: dict[str, Any]) -> None:
    import msgspec

    from services.simulator.live import SCENARIO_TOPIC
    from services.simulator.publish import Message

    publisher = _publisher(settings, options, "lifeline-trigger")
    publisher.start()
    publisher.offer(Message(SCENARIO_TOPIC, msgspec.json.encode({"scenario": options["trigger"]})))
    done = publisher.close(10.0)
    if not done:
        raise click.ClickException(f"the broker did not take the order: {publisher.last_error}")
    click.echo(f"asked for {options['trigger']}")


def _live(settings: Settings, options: dict[str, Any]) -> int:
    from services.simulator.live import SCENARIO_TOPIC, Limits, Simulator, run, take_order
    from services.simulator.prefecture import build
    from services.simulator.scenarios import Stage, parse_order
    from services.simulator.schedule import Schedule, live_intervals
    from services.simulator.world import World

    stop = _stop_on_signals()
    prefecture = build(options["seed"], options["points"])
    stage = Stage(prefecture, options["scenario_speed"])
    world = World(prefecture, stage, options["faults"])
    rate = options["rate"] or READINGS_PER_POINT_AND_S * len(prefecture.points)
    interval = prefecture.interval_s if options["real_intervals"] else live_intervals(prefecture.interval_s, rate)
    publisher = _publisher(
        settings,
        options,
        "lifeline-simulator",
        in_flight=options["in_flight"],
        backlog_bytes=options["backlog_mb"] << 20,
        on_message=lambda _topic, payload: take_order(stage, payload),
        subscriptions=(SCENARIO_TOPIC,),
    )
    # Started after what may fail, and each with its end registered at once.
    publisher.start()
    simulator = Simulator(world, Schedule(prefecture, interval, time.time()), publisher)
    try:
        if options["history_days"]:
            _publish_history(simulator, publisher, options, stop)
            simulator.schedule = Schedule(prefecture, interval, time.time())
        simulator.connect_edges(_broker(settings, options))
        for edge in simulator.edges:
            edge.publisher.start()
        for order in options["scenarios"]:
            stage.begin(parse_order(order))
        run(simulator, publisher, Limits(options["duration"], options["count"]), stop)
    finally:
        clean = _close_all([publisher, *simulator.edges])
    return 0 if clean else 1


def _close_all(closing: list[Any]) -> bool:
    """Close all at once: each may wait for acknowledgements as long as the whole may take."""
    results: list[bool] = []
    threads = [threading.Thread(target=lambda one=one: results.append(one.close(FLUSH_S))) for one in closing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(results)


def _publish_history(simulator: Any, publisher: Any, options: dict[str, Any], stop: threading.Event) -> None:
    from services.simulator.live import history

    now = time.time()
    begin = now - options["history_days"] * 86400
    interval = simulator.world.prefecture.interval_s
    started, sent = time.monotonic(), 0
    with click.progressbar(length=round(now - begin), label="history", show_pos=False) as bar:
        for until, messages in history(simulator, interval, begin, now):
            for message in messages:
                if not publisher.put(message, stop):
                    return
                sent += message.readings
                stop.wait(max(0.0, started + sent / options["history_rate"] - time.monotonic()))
            bar.update(round(until - begin) - bar.pos)
    publisher.flush(600, stop)
    click.echo(f"history: {sent} readings of {options['history_days']:g} days")


def _replay(settings: Settings, options: dict[str, Any]) -> int:
    from services.simulator.mapping import MappingError, load_mapping
    from services.simulator.replay import ReplayError, Report, Source, Window, replay

    try:
        mapping = load_mapping(options["mapping_file"])
    except MappingError as error:
        _bad("--mapping", error)
    zone = ZoneInfo(mapping.time.timezone)
    window = Window(
        begin_ms=_milliseconds(options["begin"], zone),
        end_ms=_milliseconds(options["end"], zone),
        sort=options["sort"],
        speed=options["speed"] or None,
        shift_to_now=options["shift_to_now"],
        batch_rows=options["batch"],
    )
    stop = _stop_on_signals()
    report = Report()
    publisher = _publisher(
        settings,
        options,
        "lifeline-replay",
        in_flight=options["in_flight"],
        backlog_bytes=min(options["backlog_mb"], 8) << 20,
    )
    try:
        source = Source(options["replay_file"], mapping, window)
        total, newest = source.survey()
        shift = round(time.time() * 1000) - newest if window.shift_to_now and total else 0
        publisher.start()
        try:
            if not publisher.wait_connected(15):
                raise click.ClickException(f"no connection to the broker: {publisher.last_error or 'no answer'}")
            with click.progressbar(length=total, label=options["replay_file"].name, show_pos=True) as bar:
                replay(source, publisher, report, stop, shift_ms=shift, progress=bar.update)
            done = not stop.is_set() and publisher.flush(float("inf"), stop)
        finally:
            publisher.close(FLUSH_S if stop.is_set() else 0.1)
    except ReplayError as error:
        raise click.ClickException(str(error)) from error
    return _tell_replay(report, source, publisher, done)


def _milliseconds(moment: datetime | None, zone: ZoneInfo) -> int | None:
    if moment is None:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp() * 1000)


def _tell_replay(report: Any, source: Any, publisher: Any, done: bool) -> int:
    counts = publisher.counts()
    for fault in report.faults:
        click.echo(f"skipped: {fault}", err=True)
    if source.unmapped:
        click.echo(f"columns without a mapping: {', '.join(source.unmapped)}", err=True)
    fields = dataclasses.asdict(report) | {
        "acknowledged_messages": counts.acknowledged,
        "acknowledged_readings": counts.acknowledged_readings,
        "refused_messages": counts.refused,
    }
    fields.pop("faults")
    click.echo("replayed: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields.items()))
    if counts.refused:
        click.echo(f"{counts.refused} messages were refused: {publisher.last_error}", err=True)
    if not done:
        click.echo("ended before all was acknowledged", err=True)
    return 0 if done and not counts.refused else 1


if __name__ == "__main__":
    main()
