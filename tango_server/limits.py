"""How much one call of a client may bring. What is beyond is refused in words that name the cap."""

LONGEST_TEXT = 16 * 2**20
"""Bytes of one JSON text."""
DEEPEST = 32
"""Levels of nesting in a frame's metadata, and so in any JSON text that means something."""
LARGEST_METADATA = 64 * 2**10
"""Bytes of one frame's metadata as JSON."""
MOST_REQUESTS = 10_000
"""Requests, and announced runs, of one Submit."""
MOST_JOB_IDS = 10_000
"""Job ids of one GetReports or Cancel."""
MOST_REPORTS = 100_000
"""Reports of one answer."""
MANY_REPORTS = 1000
"""Reports of one answer beyond which it takes long, so that it must wait for its turn."""
MOST_PATHS = 100_000
"""Paths of one AddFiles."""
MOST_LISTED = 10_000
"""Frames in one answer of ListFolder."""
MOST_LOOKED_FOR = 1000
"""Paths of one FindMissing; each is looked for on the file system."""
LONGEST_ID = 512
"""Characters of a run uid, a stream's name or a job id."""
LONGEST_SOURCE = 4096
"""Characters of a path; how many bytes are fit is said in `tango_server.conversion.files.path_checks`."""
LONGEST_KEY = LONGEST_ID + LONGEST_SOURCE
"""Characters of a key, which may be made of an id and a path."""
