{{/*
How a scraper of the Prometheus operator reads our pods, the same by pods and by Services. Labels of
the series themselves win (honorLabels): a job's series has its own namespace and job.
Argument: dict root, monitor (its values).
*/}}
{{- define "tramontane.endpoint" -}}
port: metrics
path: /metrics
interval: {{ .monitor.interval }}
honorLabels: true
relabelings:
  # operator, scheduler or agent.
  - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
    targetLabel: component
  # An agent speaks of the blade that it runs on.
  - sourceLabels:
      - __meta_kubernetes_pod_label_app_kubernetes_io_component
      - __meta_kubernetes_pod_node_name
    regex: agent;(.+)
    targetLabel: blade
    replacement: $1
  {{- with .root.Values.monitoring.cluster }}
  - targetLabel: cluster
    replacement: {{ . | quote }}
  {{- end }}
{{- end -}}

{{/* The pods, or Services, of the components that serve metrics. Argument: dict root. */}}
{{- define "tramontane.targets" -}}
namespaceSelector:
  matchNames: [{{ .root.Release.Namespace }}]
selector:
  matchLabels:
    app.kubernetes.io/name: {{ .root.Chart.Name }}
    app.kubernetes.io/instance: {{ .root.Release.Name }}
  matchExpressions:
    - {key: app.kubernetes.io/component, operator: In, values: [operator, scheduler, agent]}
{{- end -}}
