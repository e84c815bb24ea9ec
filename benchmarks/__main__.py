"""``make bench``: one JSON line per figure. ``python -m benchmarks [PREFIX]`` runs those whose names begin with it."""

from __future__ import annotations

import sys

from benchmarks.ingest import ingest
from benchmarks.stage import stage
from benchmarks.storage import storage


def main() -> None:
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    with stage() as servers:
        for part in (ingest, storage):
            if part.__name__.startswith(only) or only.startswith(part.__name__):
                for figure in part(servers, only):
                    print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
