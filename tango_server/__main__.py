"""`python -m tango_server` is the `petif` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory: modules that lie among data are not ours

    from tango_server.cli import main

    main()
