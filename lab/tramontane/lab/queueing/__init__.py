"""Queues of gangs on a virtual clock: traces, the engine or another policy, and what they wait."""
