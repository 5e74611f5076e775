"""When rounds began and ended, by the log of an NVIDIA FLARE server."""

import re
from datetime import datetime

# A message may stand lines below its time.
_TOLD = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})|Round (?P<round>\d+) started|(?P<end>Finished FedAvg)",
    re.MULTILINE,
)


def round_times(log: str) -> list[float]:
    """Return when each round began and the last one ended, in seconds since the epoch."""
    starts: dict[int, float] = {}
    end: list[float] = []
    moment = 0.0
    for told in _TOLD.finditer(log):
        if told["time"]:
            moment = datetime.strptime(told["time"], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        elif told["round"]:
            starts.setdefault(int(told["round"]), moment)
        else:
            end = [moment]
    return [starts[number] for number in sorted(starts)] + end
