"""What a figure was measured on."""

import os
import platform
import re
from pathlib import Path

from benchmarks.contestants.common import cores


def machine() -> dict[str, str | int]:
    """Return the processor, its cores, the memory and the Python."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
