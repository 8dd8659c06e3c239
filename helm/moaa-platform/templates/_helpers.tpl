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
{{- .Values.kubeflow.launcher.secretName | default .Values.s3.secretName }}
{{- end }}

{{- /* What the pipeline may do with Jobs; empty: nothing. */}}
{{- define "moaa.jobVerbs" -}}
{{- if not .Values.trainer.enabled -}}
[create, get, list, watch, patch, delete]
{{- else if .Values.sandbox.enabled -}}
[create, get, list, delete]
{{- else if and .Values.recurring.enabled (not .Values.recurring.host) -}}
[create, get, list]  # the runner Job of the recurring run
{{- end }}
{{- end }}

{{- /* An ipBlock without link-local addresses: a cloud's metadata, and with it the node's identity. */}}
{{- define "moaa.block" -}}
{{- if eq . "0.0.0.0/0" }}{cidr: {{ . }}, except: [169.254.0.0/16]}{{ else if eq . "::/0" }}{cidr: "::/0", except: ["fe80::/10", "fd00:ec2::254/128"]}{{ else }}{cidr: {{ . | quote }}}{{ end }}
{{- end }}

{{- /* S3's variables, by name: not all that the Secret may hold. Without a Secret, a cloud's identity must do. */}}
{{- define "moaa.s3Env" -}}
{{- with .Values.s3.secretName }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.Values.s3.secretName }}, key: {{ . }}}}}
{{- end }}
{{- range list "AWS_SESSION_TOKEN" "AWS_ENDPOINT_URL_S3" "AWS_REGION" }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.Values.s3.secretName }}, key: {{ . }}, optional: true}}}
{{- end }}
{{- end }}
{{- end }}
