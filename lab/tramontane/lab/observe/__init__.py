"""Watch a cluster: what is exported, and what is made of it.

exported     every metric that a component exports, read from the code
boards       dashboards, as typed Python, and the JSON that the chart ships
alerts       alerts with their runbooks and their tests
pictures     the boards drawn from a live Prometheus
"""
