"""The user's folders, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def forget_relative_folders() -> None:
    """Leave the user's folders that are no absolute paths out of this process's environment.

    They count for nothing, says the XDG specification; libraries that do not know it, and children,
    would make them in the current folder.
    """
    for name, path in list(os.environ.items()):
        if name.startswith("XDG_") and name.endswith("_HOME") and not os.path.isabs(path):
            del os.environ[name]


def user_path(variable: str, default: str, name: str) -> Path | None:
    """The path of one of our files in a folder of the user's; None where there is no home.

    ``variable`` names the folder, as XDG_CACHE_HOME does; ``default`` is it, below the home.
    """
    stated = os.environ.get(variable, "")
    if os.path.isabs(stated):  # a relative one counts for nothing, says the specification
        return Path(stated, "draftlink", name)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / default / "draftlink" / name if home.is_absolute() else None
