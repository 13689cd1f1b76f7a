"""`python -m petif_bluesky` is the `petif` command."""

from tango_server.cli import main

if __name__ == "__main__":
    main()
