"""What everything stands on: checks of arguments, parameters, modules, the machine."""


def _refuse_subinterpreters() -> None:
    """Say what is wrong where the core would wait for ever for the main interpreter's lock."""
    interpreters = None
    for name in ("_interpreters", "_xxsubinterpreters"):  # the latter before Python 3.13
        try:
            interpreters = __import__(name)
        except ImportError:
            continue
        break
    if interpreters is not None and interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "lstmcore runs in the main interpreter of a process only: start threads or processes "
            "in place of subinterpreters"
        )


_refuse_subinterpreters()
