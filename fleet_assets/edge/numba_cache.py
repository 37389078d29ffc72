"""Where Numba keeps what it compiled, on a device.

In: the user. Out: a folder of this user's own, as NUMBA_CACHE_DIR. Numba unpickles its cache: whoever can write there runs code
as this user.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fleet_assets.errors import FleetError

_VARIABLE = "NUMBA_CACHE_DIR"


def use_own_cache() -> None:
    """To be called before Numba is imported; does nothing after that. Raises FleetError if others can write to the folder."""
    if "numba" in sys.modules:
        return
    known = os.environ.get(_VARIABLE)
    if known is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "fleet" / "numba"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        os.environ[_VARIABLE] = str(folder)
    else:
        folder = Path(known)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise FleetError(f"Others can write to {folder}, from which code is loaded", remedy=f"chmod 700 {folder}")
