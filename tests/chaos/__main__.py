"""The long form: `python -m tests.chaos --seed N --minutes M`. Exit code 1 if a frame was lost, doubled or spoilt."""

import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.run import run_chaos
from tests.chaos.scale import long, short


@click.command()
@click.option("--seed", type=int, help="The same seed gives the same frames and disturbances. [default: by the clock]")
@click.option("--minutes", default=10.0, show_default=True, help="How long frames are taken; 0 for the short form.")
@click.option("--size", default=256, show_default=True, help="Edge of the frames in pixels.")
@click.option("--rate", default=15.0, show_default=True, help="Frames per second.")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where to work. [default: /tmp]"
)
def main(*, seed: int | None, minutes: float, size: int, rate: float, folder: Path | None) -> None:
    """Take a server and everything that it stands on away and give it back, under load, and count what was lost."""
    begin = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - begin:7.1f} s  {text}")

    scale = long(minutes, rate, size) if minutes else short()
    work = Path(tempfile.mkdtemp(prefix="petif-chaos-", dir=folder))
    account = run_chaos(int(time.time()) if seed is None else seed, scale, work, say)
    click.echo(f"\n{account}\n\nThe logs are in {work}.")
    sys.exit(0 if account.clean else 1)


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
