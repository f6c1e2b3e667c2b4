{{/*
A role and its binding to the ServiceAccount of a component.
Argument: dict root, component, rules (a list), namespaced (bool) and, for a Role elsewhere, namespace;
annotations where there are some.
*/}}
{{- define "tramontane.grant" -}}
{{- $name := printf "%s-%s" (include "tramontane.fullname" .root) .component -}}
{{- $namespace := .namespace | default .root.Release.Namespace -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "Role" "ClusterRole" .namespaced }}
metadata:
  name: {{ $name }}
  {{- if .namespaced }}
  namespace: {{ $namespace }}
  {{- end }}
  labels:
    {{- include "tramontane.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" .namespaced }}
metadata:
  name: {{ $name }}
  {{- if .namespaced }}
  namespace: {{ $namespace }}
  {{- end }}
  labels:
    {{- include "tramontane.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "Role" "ClusterRole" .namespaced }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "tramontane.serviceAccount" . }}
    namespace: {{ .root.Release.Namespace }}
{{ end -}}

{{/* Election by Lease. A create cannot be bound to a name, all else is. Argument: the Lease's name. */}}
{{- define "tramontane.election" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ . }}]
  verbs: [get, update]
{{- end -}}
