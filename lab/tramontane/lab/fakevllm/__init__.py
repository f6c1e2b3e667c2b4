"""Stand in for vLLM: its command line, endpoints, metrics, ranks and ways to die, without a GPU.

One folder, standard library only: it runs in any container that has Python 3.11, as
`python3 .../fakevllm serve MODEL [OPTION ...]`, and in the checkout as a module of the lab.

    options ─► ranks: all nodes joined? ─► loading ─► wire: HTTP ─► api ─► engine: steps ─► chunks
                      │ a peer is gone                                 ▲
                      └──────────► dies with 1, or hangs ◄── faults ───┘

What is real: names and shapes. What is not: tokens are words of a list, and times are as asked for
(`--fake-ttft`, `--fake-itl`), stretched by a queue before limited slots, as in the real engine.
Source: the sources of vLLM 0.32, for options, metrics, buckets, error texts and exit codes.
"""
