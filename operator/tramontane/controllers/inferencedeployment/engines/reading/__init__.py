"""Read flags from the sources of engines, one module per engine; nothing of them is run.

For people who add a version, through `readflags`; the operator never imports this.
"""
