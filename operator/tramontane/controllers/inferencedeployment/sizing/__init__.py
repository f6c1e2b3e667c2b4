"""Find out how a model is laid out over GPUs, and what that comes to in memory: pure arithmetic.

ask          spec and NodePool → Ask: what must fit where; `gpus` knows memory and bandwidth
modelconfig  config.json or params.json → Model; `configkeys` reads their keys,
             `quantization` the bytes per weight
memory       a Model in a Layout → what each GPU holds, and what is left for the KV cache
layouts      which layouts there are, and what a layout must divide
plan         Ask → Sizing or Refusal; `asis` where nothing is known of the model
words        the arithmetic, for people
"""
