"""Write lines as vLLM's logger and uvicorn's access log do."""

import sys
import time


def info(place: str, text: str) -> None:
    """Write one line; `place` is the source file that vLLM would name."""
    _write("INFO", place, text)


def warning(place: str, text: str) -> None:
    """Write one line that is a warning."""
    _write("WARNING", place, text)


def error(place: str, text: str) -> None:
    """Write one line that is an error."""
    _write("ERROR", place, text)


def access(peer: str, line: str, status: str) -> None:
    """Write one line of the access log; it is seen with the next other line, or a second later."""
    sys.stdout.write(f'INFO:     {peer} - "{line} HTTP/1.1" {status}\n')


def _write(level: str, place: str, text: str) -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    for line in text.splitlines():
        sys.stdout.write(f"{level} {stamp} [{place}] {line}\n")
    sys.stdout.flush()
