"""A RunEngine and all that a run with conversion needs, for tests of whole runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bluesky import RunEngine

from petif_bluesky import PETifConverter, conversion_wrapper
from petif_bluesky.testing.fake_server import FakeServer
from tests.unit.documents import Recorder


@dataclass
class Lab:
    """What a run needs; its documents go to the recorder."""

    run_engine: RunEngine
    recorder: Recorder
    converter: PETifConverter
    server: FakeServer
    make_detector: Callable[..., Any]

    @cached_property
    def detector(self) -> Any:
        return self.make_detector()

    def run(self, plan: Any, **options: Any) -> Any:
        """Run a plan with `conversion_wrapper`; return what the RunEngine returns."""
        return self.run_engine(conversion_wrapper(plan, self.converter, **options))
