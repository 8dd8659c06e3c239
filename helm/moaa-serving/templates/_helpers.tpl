{{- define "moaa.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- /* Selects this release's objects. Must never change. */}}
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

{{- /* All models as a JSON list: with defaults, with their pool, and with what follows from both. */}}
{{- define "moaa.models" -}}
{{- $models := list }}
{{- $names := dict }}
{{- $pools := .Values.pools | default (dict "default" dict) }}
{{- $all := .Values.models }}
{{- range .Values.promoted }}
  {{- if and .replicas $.Values.gateway.enabled }}
    {{- fail (printf "promoted: '%s' has replicas %v: the gateway keeps its slots up. Set leasedReplicas instead." .name .replicas) }}
  {{- end }}
  {{- $given := . }}
  {{- range $slot := list "a" "b" }}
    {{- $pointed := dict "name" (printf "%s-%s" $given.name $slot) "servedName" ($given.servedName | default $given.name) "source" (printf "%s/%s.json" (trimSuffix "/" $given.pointers) $slot) "slot" $slot }}
    {{- /* Without the gateway nobody wakes a slot: both stay up. */}}
    {{- if not $.Values.gateway.enabled }}{{ $_ := set $pointed "replicas" (max 1 ($given.replicas | default 1)) }}{{ end }}
    {{- $all = append $all (merge $pointed (omit $given "pointers")) }}
  {{- end }}
{{- end }}
{{- range $all }}
  {{- $m := mergeOverwrite (deepCopy $.Values.modelDefaults) . }}
  {{- if hasKey $names .name }}{{ fail (printf "models: two have the name '%s'. Rename one." .name) }}{{ end }}
  {{- $_ := set $names .name true }}
  {{- if not (hasKey $pools $m.pool) }}
    {{- fail (printf "models: '%s' is in pool '%s', which is not one of `pools` (%s)." .name $m.pool (keys $pools | sortAlpha | join ", ")) }}
  {{- end }}
  {{- $pool := mergeOverwrite (deepCopy $.Values.poolDefaults) (index $pools $m.pool | default dict) }}
  {{- $_ := set $m "nodes" $pool }}
  {{- $_ := set $m "servedName" ($m.servedName | default .name) }}
  {{- $_ := set $m "fullname" (printf "%s-%s" (include "moaa.fullname" $) .name) }}
  {{- if gt (len $m.fullname) 63 }}
    {{- fail (printf "models: '%s' has more than 63 characters. Shorten the model's name or set fullnameOverride." $m.fullname) }}
  {{- end }}
  {{- $gpus := ternary (int $m.tensorParallelSize) 0 (eq $pool.device "cuda") }}
  {{- if and (eq $pool.device "cpu") (gt (int $m.tensorParallelSize) 1) }}
    {{- fail (printf "models: '%s' has tensorParallelSize %v, but its pool '%s' has no GPUs (device: cpu)." .name $m.tensorParallelSize $m.pool) }}
  {{- end }}
  {{- $_ := set $m "gpus" $gpus }}
  {{- $kind := "hub" }}
  {{- if hasPrefix "s3://" .source }}{{ $kind = "s3" }}{{ else if hasPrefix "package:" .source }}{{ $kind = "package" }}{{ end }}
  {{- if and (ne $kind "hub") $m.revision }}
    {{- fail (printf "models: '%s' has revision '%s', but only hub models have revisions. Remove it." .name $m.revision) }}
  {{- end }}
  {{- $_ := set $m "kind" $kind }}
  {{- $_ := set $m "slot" ($m.slot | default "") }}
  {{- /* Each source has its own folder: a volume may still hold the files of an earlier source. */}}
  {{- $_ := set $m "path" (ternary .source (printf "/models/%s-%s" .name (sha256sum .source | trunc 8)) (eq $kind "hub")) }}
  {{- $_ := set $m "startSeconds" (ceil (addf $.Values.startup.baseSeconds (mulf $m.sizeGib $.Values.startup.secondsPerGib)) | int) }}
  {{- if and (ne $m.autoscaling.kind "none") (lt (int $m.replicas) 1) }}
    {{- fail (printf "models: '%s' has autoscaling, but replicas 0: leases scale a leased model. Set replicas to 1 or more, or autoscaling.kind to none." .name) }}
  {{- end }}
  {{- if $m.speculativeTokens }}
    {{- if ne $m.task "chat" }}
      {{- fail (printf "models: '%s' has speculativeTokens, but its task is '%s': it writes nothing. Remove it." .name $m.task) }}
    {{- end }}
    {{- $ngram := dict "method" "ngram" "num_speculative_tokens" (int64 $m.speculativeTokens) "prompt_lookup_max" 4 "prompt_lookup_min" 2 }}
    {{- $_ := set $m "extraArgs" (append $m.extraArgs (printf "--speculative-config=%s" (toJson $ngram))) }}
  {{- end }}
  {{- $scaled := ne $m.autoscaling.kind "none" }}
  {{- if and $scaled (lt (int $m.autoscaling.maxReplicas) (int $m.replicas)) }}
    {{- fail (printf "models: '%s' has replicas %v and autoscaling.maxReplicas %v: the maximum is below the minimum." .name $m.replicas $m.autoscaling.maxReplicas) }}
  {{- end }}
  {{- $_ := set $m "mostIdle" (ternary $m.autoscaling.maxReplicas $m.replicas $scaled | int) }}
  {{- $_ := set $m "leased" (ternary $m.replicas (max $m.replicas $m.leasedReplicas) $scaled | int) }}
  {{- $models = append $models $m }}
{{- end }}
{{- dict "models" $models | toJson }}
{{- end }}

{{- /* Labels that select one model's pods: .root, .model */}}
{{- define "moaa.modelSelector" -}}
{{ include "moaa.selector" .root }}
moaa.dev/model: {{ .model.name }}
{{- end }}

{{- /*
Replicas of a model's Deployment. Leases, the reaper and autoscalers change the number between upgrades, so an
upgrade keeps the present number (at least `replicas`). Exception: no lease, and the values have another number
than before. At the first installation, and without a cluster (`helm template`), it is `replicas`.
*/}}
{{- define "moaa.replicas" -}}
{{- $there := lookup "apps/v1" "Deployment" .root.Release.Namespace .model.fullname }}
{{- if $there }}
{{- $annotations := $there.metadata.annotations | default dict }}
{{- $leased := false }}
{{- range (lookup "coordination.k8s.io/v1" "Lease" .root.Release.Namespace "").items }}
{{- if eq (index (.metadata.annotations | default dict) "moaa.dev/holds" | default "") (printf "Deployment/%s" $.model.fullname) }}{{ $leased = true }}{{ end }}
{{- end }}
{{- $unchanged := eq (index $annotations "moaa.dev/idle-replicas" | default "") (toString .model.mostIdle) }}
{{- if or $leased $unchanged }}{{ max $there.spec.replicas .model.replicas }}{{ else }}{{ .model.replicas }}{{ end }}
{{- else }}
{{- .model.replicas }}
{{- end }}
{{- end }}

{{- /* For all pods: no token, no rights, no addresses of services in their environment. */}}
{{- define "moaa.pod" -}}
serviceAccountName: {{ include "moaa.fullname" . }}
automountServiceAccountToken: false
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
