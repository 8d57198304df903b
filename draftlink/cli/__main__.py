"""``python -m draftlink.cli``."""

from draftlink.cli import main

main()
