"""A bluesky session in a process of its own, to be killed: `python -m tests.system.session_process ADDRESS ROOT`.

It counts for ever with a callback subscribed, and prints the path of each frame once the callback has taken it.
"""

import sys
from pathlib import Path
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.recipe import Recipe


def main(address: str, root: Path) -> None:
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(ConversionCallback(PETifConverter(address, name="converter"), spool=root / "spool.sqlite"))

    def tell(_name: str, event: Any) -> None:
        sys.stdout.write(f"{event['data']['pe_full_file_name']}\n")
        sys.stdout.flush()

    engine.subscribe(tell, "event")
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.0)
    recipe = Recipe.preset("xdi", rotation=90, flip="1").model_dump(mode="json")
    engine(bp.count([detector], num=100_000, md={"conversion": {"recipe": recipe}}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
