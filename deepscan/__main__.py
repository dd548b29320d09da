"""`python -m deepscan`, and the `deepscan` command."""

import os
import sys

INTERRUPTED = 130  # as console.Exit has it, which is not imported yet


def main() -> None:
    """Run the command line and exit with its code. SIGTERM and SIGHUP count as Ctrl-C."""
    _open_streams()
    _forget_working_folder()
    try:
        from deepscan.interrupt import hear_signals

        hear_signals()
        from deepscan.cli import run

        code = run()
    except KeyboardInterrupt:  # before the command began, or after it
        code = INTERRUPTED
    if code == INTERRUPTED or "torch" in sys.modules:
        from deepscan.interrupt import leave

        leave(code, code == INTERRUPTED)
    sys.exit(code)


def _forget_working_folder() -> None:
    """Import nothing from there: it may hold evidence, and `python -m` looks there before everything else."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        return
    if sys.path[:1] == [here] and here != home:
        del sys.path[0]


def _open_streams() -> None:
    """Open missing standard streams on /dev/null, as in a daemon.

    Otherwise the next files to be opened would take their numbers, and what is printed would go there; in the
    processes that are started later, too.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
