{{/* Cut so that the longest suffix, of 19 characters, still ends within 63 characters. */}}
{{- define "tramontane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Argument: dict root, component. The selector never changes within a release. */}}
{{- define "tramontane.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Argument: dict root and, for an object of one component, component. */}}
{{- define "tramontane.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: tramontane
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Argument: dict root, component. Where the values say nothing of an account, it is the chart's. */}}
{{- define "tramontane.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount | default (dict "create" true) -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if $account.create -}}
{{- printf "%s-%s" (include "tramontane.fullname" .root) .component -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* Argument: dict root, image (repository, tag, digest). Tag and digest may stand together. */}}
{{- define "tramontane.imageOf" -}}
{{- with (.root.Values.global).imageRegistry | default .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Of operator, scheduler and command line. */}}
{{- define "tramontane.image" -}}
{{- include "tramontane.imageOf" (dict "root" . "image" .Values.image) -}}
{{- end -}}

{{/* Of the agent, and of the pods that test and reset blades. */}}
{{- define "tramontane.agentImage" -}}
{{- include "tramontane.imageOf" (dict "root" . "image" .Values.agent.image) -}}
{{- end -}}

{{/* The secrets of the umbrella chart and of the release, each once, as a JSON list. */}}
{{- define "tramontane.allPullSecrets" -}}
{{- concat ((.Values.global).imagePullSecrets | default list) .Values.imagePullSecrets | uniq | toJson }}
{{- end -}}

{{- define "tramontane.pullSecrets" -}}
{{- with include "tramontane.allPullSecrets" . | fromJsonArray }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Without the chart's version: a new chart with the same pods must not restart a fleet of agents. */}}
{{- define "tramontane.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "tramontane.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: tramontane
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The fields of a pod's spec that all components have. */}}
{{- define "tramontane.podScheduling" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "tramontane.serviceAccount" . }}
{{- include "tramontane.pullSecrets" .root }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Arguments that all components take. */}}
{{- define "tramontane.commonArgs" -}}
- --namespace={{ .Release.Namespace }}
- --identity=$(POD_NAME)
- --metrics-port={{ .Values.metrics.port }}
- --metrics-bind=$(POD_IP)
- --log-level={{ .Values.logLevel }}
{{- if ne .Values.metrics.detail "normal" }}
- --metrics-detail={{ .Values.metrics.detail }}
{{- end }}
{{- end -}}

{{/* Probes: every process serves /metrics, /healthz and /readyz on one port, called metrics. */}}
{{- define "tramontane.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}
