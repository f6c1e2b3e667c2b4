"""Serve models on the lab's real nodes: what the demo and the tests of real nodes both need.

    model        a complete model directory of some kilobytes, and a job that "trains" one
    deployment   an InferenceDeployment over the machine's Python and the fake vLLM
    streams      a client that streams requests from whoever a Service's EndpointSlices name

Kubelets, probes, agents, digests and endpoints are real; only the engine plays (`fakevllm`).
"""
