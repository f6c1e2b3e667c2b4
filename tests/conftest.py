"""Shared by all tiers."""

import asyncio
import os

from hypothesis import settings

# pytest-asyncio and looptime ask for "the" event loop around tests. Before any was set, Python
# 3.11 makes one that nobody closes, and the ResourceWarning, an error here, hits whatever test
# runs when the collector comes by. None is what they want to hear.
asyncio.set_event_loop(None)

# A busy machine is no failure, so no deadline; CI draws the same examples each time.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
