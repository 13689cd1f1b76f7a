"""Limits on the size of one client call. A call that exceeds one is refused with a message that names it."""

LONGEST_TEXT = 16 * 2**20
"""Bytes of one JSON text."""
DEEPEST = 32
"""Levels of nesting in a frame's metadata, and so in any valid message."""
LARGEST_METADATA = 64 * 2**10
"""Bytes of one frame's metadata as JSON."""
MOST_REQUESTS = 10_000
"""Requests, and announced runs, in one Submit."""
MOST_MEMBERS = 10_000
"""Frames that are combined to one."""
MOST_POINTS = 100_000
"""Points of a map."""
MOST_AXES = 16
"""Axes of a map."""
MOST_STREAMS = 100
"""Streams of one run in the `run_counts` of a Submit."""
MOST_COUNTS = 10_000
"""Streams of all runs in the `run_counts` of a Submit."""
MOST_JOB_IDS = 10_000
"""Job ids in one GetReports or Cancel."""
MOST_REPORTS = 100_000
"""Reports in one answer."""
MANY_REPORTS = 1000
"""Reports in one answer above which the call counts as long, of which only a few run at a time."""
MOST_PATHS = 100_000
"""Paths in one AddFiles."""
MOST_LISTED = 10_000
"""Frames in one answer of ListFolder."""
MOST_LOOKED_FOR = 1000
"""Paths in one FindMissing; each is checked on the file system."""
LONGEST_ID = 512
"""Characters of a run uid, a stream's name or a job id."""
LONGEST_SOURCE = 4096
"""Characters of a path; the limit in bytes is in `tango_server.conversion.files.path_checks`."""
LONGEST_KEY = LONGEST_ID + LONGEST_SOURCE
"""Characters of a key, which may combine an id and a path."""
