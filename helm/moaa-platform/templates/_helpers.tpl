{{- define "moaa.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moaa.labels" -}}
{{ include "moaa.selector" . }}
app.kubernetes.io/part-of: moaa
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "moaa.pod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.security.runAsUser | int64 }}
  runAsGroup: {{ .Values.security.runAsUser | int64 }}
  fsGroup: {{ .Values.security.runAsUser | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "moaa.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* For containers that only talk to the API server. */}}
{{- define "moaa.small" -}}
imagePullPolicy: {{ .Values.imagePullPolicy }}
{{ include "moaa.container" . }}
resources:
  requests: {cpu: 100m, memory: 128Mi}
  limits: {cpu: "1", memory: 512Mi}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- /* GiB as a quantity. */}}
{{- define "moaa.gib" -}}
{{- $mib := mulf . 1024 | ceil | int64 }}
{{- if mod $mib 1024 }}{{ $mib }}Mi{{ else }}{{ div $mib 1024 }}Gi{{ end }}
{{- end }}

{{- define "moaa.launcherSecret" -}}
{{ .Values.kubeflow.launcher.secretName | default .Values.s3.secretName }}
{{- end }}

{{- /* What the pipeline may do with Jobs; empty: nothing. */}}
{{- define "moaa.jobVerbs" -}}
{{- if not .Values.trainer.enabled -}}
[create, get, list, watch, patch, delete]
{{- else if and .Values.recurring.enabled (not .Values.recurring.host) -}}
[create, get, list]  # the runner Job of the recurring run
{{- end }}
{{- end }}
