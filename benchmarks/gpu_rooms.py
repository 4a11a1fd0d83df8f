"""`unface` from this checkout where it is not installed: importing this module is enough.

On a machine without network pip cannot install it, and the rooms of the house lie beside each
other under other names. So a folder of links, as `pyproject.toml` maps them, goes onto the path,
also onto that of processes started from here. An installed `unface` is left as it is.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_MAPPING = re.compile(r'^"unface(?:\.(\w+))?" = "([\w/]+)"$', re.MULTILINE)


def map_rooms(folder: Path, root: Path = ROOT) -> Path:
    """Write links into `folder` that make the checkout at `root` the package `unface`."""
    text = (root / "pyproject.toml").read_text()
    text = text.split("[tool.setuptools.package-dir]")[1].split("[[")[0]
    package = folder / "unface"
    package.mkdir(parents=True)
    for name, place in _MAPPING.findall(text):
        if name:
            (package / name).symlink_to(root / place)
        else:
            for file in (root / place).iterdir():
                if file.name != "__pycache__":
                    (package / file.name).symlink_to(file)
    return folder


def provide() -> None:
    """Make `import unface` work here and in subprocesses, if it does not yet."""
    if importlib.util.find_spec("unface") is None:
        folder = Path(tempfile.mkdtemp(prefix="unface-rooms-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        sys.path.insert(0, str(map_rooms(folder)))
        others = [p for p in [os.environ.get("PYTHONPATH")] if p]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *others])


provide()
