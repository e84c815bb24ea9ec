"""What stands at each kind of site: its devices, their points, and how they talk. Figures are engineering practice."""

from __future__ import annotations

from typing import Literal, NamedTuple

Style = Literal["wired", "nb", "senml", "plc", "edge"]
"""How a device talks: ``wired`` at once in our JSON; ``nb`` (NB-IoT) several samples at a time, now and then late;
``senml`` SenML packs; ``plc`` Sparkplug B behind an edge node, or JSON where its county's node is full; ``edge`` is
that node itself, without points."""


class PointPlan(NamedTuple):
    """One point. ``setting`` is drawn from the range for each point; what it means, the signal says.

    ``valid`` stands where the catalogue leaves the range to the site; ``"setting"`` means 0 to the setting itself.
    """

    code: str
    indicator: str
    signal: str
    name: str
    setting: tuple[float, float] = (0.0, 0.0)
    valid: tuple[float, float] | Literal["setting"] | None = None


class DevicePlan(NamedTuple):
    """One device and its points."""

    slug: str
    name: str
    model: str
    style: Style
    points: tuple[PointPlan, ...]


class SitePlan(NamedTuple):
    """A kind of site. ``share``: of all points; ``named`` tells how its sites are called; ``operator``: who runs it."""

    slug: str
    sector: str
    noun: str
    share: float
    operator: str
    devices: tuple[DevicePlan, ...]
    named: Literal["street", "estate", "river", "reservoir", "bridge", "tunnel", "source", "town"] = "street"

    @property
    def points(self) -> int:
        return sum(len(device.points) for device in self.devices)


OPERATORS = {
    "water": "供排水公司",
    "gas": "燃气公司",
    "heat": "供热公司",
    "municipal": "市政设施管理所",
    "hydrology": "水利局",
    "transport": "交通运输局",
    "weather": "气象局",
    "emergency": "应急管理局",
}
"""The organisations each county has: code's ending and name's ending."""

_P = PointPlan

_WATER = (
    SitePlan(
        "src", "water_source", "水质监测站", 0.02, "water",
        (
            DevicePlan("ws", "水源在线监测仪", "WQ-4G", "senml", (
                _P("level", "water_source.level", "source.level", "水位", (6, 14), (0, 30)),
                _P("ammonia", "water_source.ammonia", "source.ammonia", "氨氮"),
                _P("conductivity", "water_source.conductivity", "source.conductivity", "电导率"),
            )),
        ),
        "source",
    ),
    SitePlan(
        "wtp", "water_supply", "水厂", 0.03, "water",
        (
            DevicePlan("out", "出厂水计量柜", "RTU-4G", "wired", (
                _P("pressure", "water_supply.pressure", "water.pressure", "出厂压力", (0.44, 0.50)),
                _P("flow", "water_supply.flow", "water.flow", "出厂流量", (180, 420), (-2000, 2000)),
            )),
            DevicePlan("wq", "出厂水质仪", "WQ-4G", "senml", (
                _P("free_chlorine", "water_supply.free_chlorine", "water.chlorine", "出厂余氯", (0.55, 0.70)),
                _P("turbidity", "water_supply.turbidity", "water.turbidity", "出厂浊度"),
                _P("ph", "water_supply.ph", "water.ph", "出厂酸碱度"),
            )),
        ),
        "town",
    ),
    SitePlan(
        "net", "water_supply", "供水监测点", 0.15, "water",
        (
            DevicePlan("pf", "压力流量一体终端", "NB-PF", "nb", (
                _P("pressure", "water_supply.pressure", "water.pressure", "管网压力", (0.35, 0.44)),
                _P("flow", "water_supply.flow", "water.flow", "管段流量", (12, 60), (-300, 300)),
            )),
            DevicePlan("ln", "噪声记录仪", "NB-LN", "nb", (
                _P("leak_noise", "water_supply.leak_noise", "water.leak_noise", "漏水噪声"),
            )),
        ),
    ),
    SitePlan(
        "dma", "water_supply", "分区计量点", 0.05, "water",
        (
            DevicePlan("mt", "分区流量计", "RTU-4G", "wired", (
                _P("flow", "water_supply.flow", "water.flow", "分区流量", (40, 140), (-600, 600)),
                _P("pressure", "water_supply.pressure", "water.pressure", "分区入口压力", (0.38, 0.46)),
                _P("night_minimum", "water_supply.night_minimum_flow", "water.night_minimum", "夜间最小流量",
                   (40, 140), (-600, 600)),
                _P("free_chlorine", "water_supply.free_chlorine", "water.chlorine", "管网余氯", (0.38, 0.50)),
            )),
        ),
        "estate",
    ),
)  # fmt: skip

_GAS = (
    SitePlan(
        "gate", "gas", "燃气门站", 0.012, "gas",
        (
            DevicePlan("scada", "门站控制柜", "RTU-4G", "wired", (
                _P("inlet", "gas.pressure_sub_high", "gas.pressure", "进站压力", (0.9, 1.3)),
                _P("outlet", "gas.pressure_medium", "gas.pressure", "出站压力", (0.30, 0.34)),
                _P("flow", "gas.flow", "gas.flow", "出站流量", (600, 1600), (0, 8000)),
            )),
        ),
        "town",
    ),
    SitePlan(
        "reg", "gas", "燃气调压站", 0.05, "gas",
        (
            DevicePlan("reg", "调压柜终端", "RTU-4G", "wired", (
                _P("inlet", "gas.pressure_medium", "gas.pressure", "进口压力", (0.20, 0.26)),
                _P("outlet", "gas.pressure_low", "gas.pressure", "出口压力", (2.3, 3.0)),
                _P("flow", "gas.flow", "gas.flow", "调压站流量", (40, 160), (0, 1000)),
            )),
        ),
    ),
    SitePlan(
        "gwl", "gas", "燃气阀井", 0.10, "gas",
        (
            DevicePlan("ch4", "可燃气体探测终端", "NB-CH4", "nb", (
                _P("methane", "gas.methane", "gas.methane", "相邻空间甲烷"),
            )),
        ),
    ),
)  # fmt: skip

_HEATING = (
    SitePlan(
        "boil", "heating", "热源厂", 0.02, "heat",
        (
            DevicePlan("plc", "锅炉房控制器", "PLC", "plc", (
                _P("supply_temperature", "heating.supply_temperature", "heating.supply", "一次供水温度", (50, 52)),
                _P("return_temperature", "heating.return_temperature", "heating.return", "一次回水温度", (50, 52)),
                _P("pressure", "heating.pressure", "heating.pressure", "一次网压力", (0.62, 0.72)),
                _P("make_up_rate", "heating.make_up_rate", "heating.make_up", "补水率"),
            )),
        ),
        "town",
    ),
    SitePlan(
        "sub", "heating", "换热站", 0.11, "heat",
        (
            DevicePlan("plc", "换热站控制器", "PLC", "plc", (
                _P("supply_temperature", "heating.supply_temperature", "heating.supply", "二次供水温度", (31, 34)),
                _P("return_temperature", "heating.return_temperature", "heating.return", "二次回水温度", (31, 34)),
                _P("pressure", "heating.pressure", "heating.pressure", "二次网压力", (0.36, 0.44)),
                _P("make_up_rate", "heating.make_up_rate", "heating.make_up", "补水率"),
            )),
        ),
        "estate",
    ),
    SitePlan(
        "room", "heating", "室温监测点", 0.13, "heat",
        (
            *(
                DevicePlan(f"r{number}", f"{number}号户室温采集器", "NB-T", "nb", (
                    _P("room_temperature", "heating.room_temperature", "heating.room", f"{number}号户室温"),
                ))
                for number in (1, 2, 3, 4)
            ),
            DevicePlan("soil", "管沟测温终端", "NB-T", "nb", (
                _P("soil_temperature", "heating.soil_temperature", "heating.soil", "管沟土壤温度"),
            )),
        ),
        "estate",
    ),
)  # fmt: skip

_DRAINAGE = (
    SitePlan(
        "mh", "drainage", "检查井", 0.12, "municipal",
        (
            DevicePlan("lv", "井下液位终端", "NB-L", "nb", (
                _P("level", "drainage.manhole_level", "drain.level", "井内液位", (2.0, 4.2), "setting"),
                _P("h2s", "drainage.h2s", "drain.h2s", "硫化氢"),
            )),
            DevicePlan("cv", "井盖状态终端", "NB-C", "nb", (
                _P("cover_tilt", "drainage.cover_tilt", "drain.tilt", "井盖倾角"),
            )),
        ),
    ),
    SitePlan(
        "pump", "drainage", "排水泵站", 0.04, "municipal",
        (
            DevicePlan("plc", "泵站控制器", "PLC", "plc", (
                _P("level", "drainage.manhole_level", "pump.well_level", "集水池液位", (6.0, 6.5), "setting"),
                _P("pump1_running", "drainage.pump_running", "pump.running", "1号泵运行", (1, 1)),
                _P("pump2_running", "drainage.pump_running", "pump.running", "2号泵运行", (2, 2)),
                _P("flow", "drainage.flow", "drain.flow", "出水流量", (60, 200), (-100, 3000)),
            )),
            DevicePlan("gas", "泵站气体探测器", "RTU-4G", "wired", (
                _P("h2s", "drainage.h2s", "drain.h2s", "硫化氢"),
                _P("co", "drainage.co", "drain.co", "一氧化碳"),
            )),
        ),
    ),
    SitePlan(
        "outf", "drainage", "排污口", 0.02, "municipal",
        (
            DevicePlan("wq", "排口水质站", "WQ-4G", "wired", (
                _P("flow", "drainage.flow", "drain.flow", "排口流量", (20, 80), (-100, 2000)),
                _P("cod", "drainage.cod", "drain.cod", "化学需氧量"),
            )),
        ),
    ),
    SitePlan(
        "wl", "waterlogging", "易涝点", 0.055, "municipal",
        (
            DevicePlan("wd", "积水雨量一体站", "RTU-4G", "wired", (
                _P("depth", "waterlogging.depth", "waterlogging.depth", "积水深度", (1.4, 4.2)),
                _P("rain_5min", "waterlogging.rain_5min", "rain.five", "5分钟雨量"),
                _P("rain_1h", "waterlogging.rain_1h", "rain.hour", "1小时雨量"),
            )),
        ),
    ),
    SitePlan(
        "riv", "river", "水文站", 0.010, "hydrology",
        (
            DevicePlan("lv", "雷达水位计", "RTU-4G", "wired", (
                _P("level", "river.level", "river.level", "河道水位", (1.6, 2.8), (0, 15)),
            )),
        ),
        "river",
    ),
    SitePlan(
        "res", "river", "坝前水位站", 0.005, "hydrology",
        (
            DevicePlan("lv", "压力水位计", "RTU-4G", "senml", (
                _P("level", "river.level", "reservoir.level", "坝前水深", (38, 62), (0, 180)),
            )),
        ),
        "reservoir",
    ),
)  # fmt: skip

_STRUCTURES = (
    SitePlan(
        "tre", "trench", "综合管沟", 0.075, "municipal",
        (
            DevicePlan("env", "管沟环境监测仪", "RTU-4G", "wired", (
                _P("temperature", "trench.temperature", "trench.temperature", "沟内温度"),
                _P("humidity", "trench.humidity", "trench.humidity", "沟内湿度"),
                _P("oxygen", "trench.oxygen", "trench.oxygen", "氧气"),
                _P("methane", "trench.methane", "trench.methane", "甲烷"),
                _P("h2s", "trench.h2s", "trench.h2s", "硫化氢"),
            )),
            DevicePlan("sec", "管沟安防终端", "RTU-4G", "wired", (
                _P("sump_level", "trench.sump_level", "trench.sump", "集水坑液位"),
                _P("intrusion", "trench.intrusion", "trench.intrusion", "入侵"),
            )),
        ),
    ),
    SitePlan(
        "brg", "bridge", "结构监测", 0.05, "transport",
        (
            DevicePlan("daq", "桥梁采集站", "DAQ-4G", "wired", (
                _P("deflection_mid", "bridge.deflection", "bridge.deflection", "跨中挠度", (30, 60)),
                _P("strain_mid", "bridge.strain", "bridge.strain", "跨中应变", (160, 280)),
                _P("strain_pier", "bridge.strain", "bridge.strain", "墩顶应变", (120, 200)),
                _P("vibration", "bridge.vibration", "bridge.vibration", "主梁振动"),
            )),
            DevicePlan("geo", "桥墩倾斜沉降终端", "NB-G", "nb", (
                _P("tilt", "bridge.tilt", "bridge.tilt", "桥墩倾角"),
                _P("settlement", "bridge.settlement", "bridge.settlement", "桥墩沉降"),
                _P("crack", "bridge.crack", "bridge.crack", "裂缝宽度"),
            )),
        ),
        "bridge",
    ),
    SitePlan(
        "tun", "tunnel", "洞内监测", 0.02, "transport",
        (
            DevicePlan("env", "隧道环境检测仪", "RTU-4G", "wired", (
                _P("co", "tunnel.co", "tunnel.co", "一氧化碳"),
                _P("visibility", "tunnel.visibility", "tunnel.extinction", "消光系数"),
            )),
            DevicePlan("cv", "收敛监测仪", "NB-G", "nb", (
                _P("convergence", "tunnel.convergence", "tunnel.convergence", "净空收敛"),
            )),
        ),
        "tunnel",
    ),
    SitePlan(
        "met", "weather", "气象站", 0.02, "weather",
        (
            DevicePlan("aws", "自动气象站", "AWS-4G", "senml", (
                _P("air_temperature", "weather.air_temperature", "weather.air", "气温"),
                _P("humidity", "weather.humidity", "weather.humidity", "相对湿度"),
                _P("air_pressure", "weather.air_pressure", "weather.pressure", "气压", (695, 775)),
                _P("wind_speed", "weather.wind_speed", "weather.wind", "风速"),
                _P("wind_direction", "weather.wind_direction", "weather.wind_direction", "风向"),
            )),
        ),
        "town",
    ),
)  # fmt: skip

SITE_PLANS: tuple[SitePlan, ...] = _WATER + _GAS + _HEATING + _DRAINAGE + _STRUCTURES
SMALLEST = sum(plan.points for plan in SITE_PLANS) * 5
"""Points of the smallest prefecture: one site of every kind in every county."""
