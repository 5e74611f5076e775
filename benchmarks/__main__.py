"""The benchmarks.

python -m benchmarks [name ...]                            what this machine does with Fedpact alone
python -m benchmarks --workload A --against pfl,flower     Fedpact and its peers in turns
python -m benchmarks preparation                           tables made ready, beside scikit-learn
python -m benchmarks scaling                               rounds per second over sizes and workers
python -m benchmarks profile --workload A                  where a round's time goes
python -m benchmarks report results/*.json --markdown      tables of earlier comparisons
"""

import importlib
import signal
import sys

COMMANDS = ("against", "preparation", "profile", "report", "scaling")


def main(words: list[str]) -> int:
    """Hand the words to the benchmark that they are for, and return the exit status."""
    if words and words[0] in COMMANDS:
        command, words = words[0], words[1:]
    else:
        command = (
            "against"
            if any(word.partition("=")[0] in ("--workload", "--against") for word in words)
            else "quick"
        )
    status: int = importlib.import_module(f"benchmarks.{command}").main(words)
    return status


def _leave(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, _leave)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
