"""The generated protobuf classes are those of the .proto beside them, made by the locked grpcio-tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_classes_are_current(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I."),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "lifeline/sparkplug_b.proto"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    for name in ("sparkplug_b_pb2.py", "sparkplug_b_pb2.pyi"):
        made = (tmp_path / "lifeline" / name).read_text(encoding="utf-8")
        kept = (ROOT / "lifeline" / name).read_text(encoding="utf-8")
        assert made == kept, (
            f"lifeline/{name} is not current; the head of lifeline/sparkplug_b.proto says how to make it"
        )
