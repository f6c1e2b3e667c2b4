"""List what is exported and on no board, each with the reason.

A metric that nobody looks at is paid for with every scrape; so it is either on a board or here.
"""

from collections.abc import Mapping
from typing import Final

_OF_PYTHON: Final = "the client library's own; for whoever debugs a process, not for who is on call"

#: Name, as queries have it, to the reason.
UNUSED_ON_PURPOSE: Final[Mapping[str, str]] = {
    "process_max_fds": _OF_PYTHON,
    "process_open_fds": _OF_PYTHON,
    "process_start_time_seconds": "Kubernetes counts restarts of containers, with their cause",
    "process_virtual_memory_bytes": "address space is no memory; resident memory is shown",
    "python_gc_collections_total": _OF_PYTHON,
    "python_gc_objects_collected_total": _OF_PYTHON,
    "python_gc_objects_uncollectable_total": _OF_PYTHON,
    "python_info": "the image fixes the version; ours is in tramontane_build_info",
}
