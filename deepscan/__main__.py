"""`python -m deepscan`, and the `deepscan` command."""

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code. SIGTERM and SIGHUP count as Ctrl-C."""
    from deepscan.cli import run

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    code = run()
    if "torch" in sys.modules:
        from deepscan.flow import leave

        leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
