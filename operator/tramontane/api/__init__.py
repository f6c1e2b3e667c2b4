"""Define the resources of `tramontane.dev/v1alpha1` and the words all components share.

The pydantic models here are the source of everything that speaks of the API: `crdgen` turns them
into `crds/*.yaml`, and each component parses raw objects with them at its edge. One file per kind
(`nodepool`, `blade`, `gang`, `trainingjob`, `inferencedeployment`), over `base` (types of fields),
`checks` (CEL rules), `quantity`, `conditions`, `reasons`, `clock`, `names` and `errors`.

Nothing here does I/O, and nothing here imports another package of Tramontane.
"""
