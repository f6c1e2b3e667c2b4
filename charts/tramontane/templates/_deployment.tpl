{{/*
The Deployment of a component that leads by Lease: operator and scheduler differ in their module,
and in what the operator alone has.
Argument: dict root, component, module, args (list), ports (list).
*/}}
{{- define "tramontane.deployment" -}}
{{- $values := index .root.Values .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "tramontane.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tramontane.labels" . | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 1, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "tramontane.selector" . | nindent 6 }}
  template:
    metadata:
      {{- include "tramontane.podMetadata" . | nindent 6 }}
    spec:
      {{- include "tramontane.podScheduling" . | nindent 6 }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "tramontane.selector" . | nindent 14 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .component }}
          image: {{ include "tramontane.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python, -m, {{ .module }}]
          args:
            {{- include "tramontane.commonArgs" .root | nindent 12 }}
            {{- with concat (.args | default list) $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            - name: TRAMONTANE_IMAGE
              value: {{ include "tramontane.agentImage" .root | quote }}
            {{- with include "tramontane.allPullSecrets" .root | fromJsonArray }}
            - name: TRAMONTANE_PULL_SECRETS
              value: {{ range $i, $one := . }}{{ if $i }},{{ end }}{{ $one.name }}{{ end }}
            {{- end }}
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: POD_IP
              valueFrom: {fieldRef: {fieldPath: status.podIP}}
            - {name: PYTHONDONTWRITEBYTECODE, value: "1"}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: metrics, containerPort: {{ .root.Values.metrics.port }}, protocol: TCP}
            {{- with .ports }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- include "tramontane.probes" .root | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          {{- with $values.extraVolumeMounts }}
          volumeMounts:
            {{- toYaml . | nindent 12 }}
          {{- end }}
      {{- with $values.extraVolumes }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
