{{- define "moaa.gatewayName" -}}
{{ include "moaa.fullname" . }}-gateway
{{- end }}

{{- /* Selects the gateway's pods. Must never change. */}}
{{- define "moaa.gatewaySelector" -}}
{{ include "moaa.selector" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "moaa.gatewayLabels" -}}
{{ include "moaa.labels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "moaa.promotedName" -}}
{{ include "moaa.fullname" .root }}-{{ .name }}
{{- end }}

{{- /* The holder of the gateway's leases: one name for all its pods, so that a model is woken once. */}}
{{- define "moaa.gatewayHolder" -}}
gateway/{{ include "moaa.fullname" . }}
{{- end }}

{{- /* Whether it may wake: `wake.enabled`, or slots that it keeps up. */}}
{{- define "moaa.gatewayWakes" -}}
{{- if or .Values.gateway.wake.enabled .Values.promoted }}true{{ end }}
{{- end }}

{{- /* The gateway's file. */}}
{{- define "moaa.gatewayFile" -}}
{{- $g := .Values.gateway }}
{{- $file := dict "host" "0.0.0.0" "port" 8080 "metrics_port" 9090 }}
{{- $_ := set $file "times" (dict "drain_s" $g.drainSeconds) }}
{{- $models := dict }}
{{- range (include "moaa.models" . | fromJson).models }}
{{- if ne .task "reward" }}
  {{- $m := dict "service" .fullname }}
  {{- if $.Values.apiKey.enabled }}{{ $_ := set $m "key_env" "VLLM_API_KEY" }}{{ end }}
  {{- $name := ternary .name .servedName (ne .slot "") }}
  {{- if ne $name .servedName }}{{ $_ := set $m "served_name" .servedName }}{{ end }}
  {{- if hasKey $models $name }}{{ fail (printf "models: two have the servedName '%s', and the gateway knows them by it. Rename one." $name) }}{{ end }}
  {{- $_ := set $models $name $m }}
{{- end }}
{{- end }}
{{- $_ := set $file "models" $models }}
{{- /* `sampling.n`: YAML takes an unquoted key n for false. */}}
{{- with .Values.mixtures }}{{ $_ := set $file "mixtures" (toJson . | replace "\"false\":" "\"n\":" | fromJson) }}{{ end }}
{{- $promoted := dict }}
{{- range .Values.promoted }}
  {{- $slots := dict "a" (printf "%s-a" .name) "b" (printf "%s-b" .name) }}
  {{- $_ := set $promoted (.servedName | default .name) (dict "slots" $slots "config_map" (include "moaa.promotedName" (dict "root" $ "name" .name)) "guard" $g.guard.enabled) }}
{{- end }}
{{- if $promoted }}{{ $_ := set $file "promoted" $promoted }}{{ end }}
{{- if $g.anonymous }}
  {{- $_ := set $file "anonymous" (dict "wake" $g.wake.enabled) }}
{{- else if $g.keys.secretName }}
  {{- $_ := set $file "keys_file" (printf "/keys/%s" $g.keys.file) }}
{{- else }}
  {{- fail "gateway: without keys.secretName nobody could ask. Name a Secret with hashes of keys, or set gateway.anonymous: true if everybody who reaches the gateway may ask." }}
{{- end }}
{{- if include "moaa.gatewayWakes" . }}
  {{- $_ := set $file "cluster" (dict "wake" (dict "holder" (include "moaa.gatewayHolder" .) "idle_s" $g.wake.idleSeconds "hold_s" $g.wake.holdSeconds)) }}
{{- end }}
{{- mergeOverwrite $file (deepCopy $g.config) | toYaml }}
{{- end }}

{{- /* The Deployments that the gateway may wake: leased models if `wake.enabled`, and slots. */}}
{{- define "moaa.gatewayWoken" -}}
{{- $names := list }}
{{- range (include "moaa.models" . | fromJson).models }}
{{- if or .slot (and $.Values.gateway.wake.enabled (not .replicas) (ne .task "reward")) }}
  {{- $names = append $names .fullname }}
{{- end }}
{{- end }}
{{- dict "names" $names | toJson }}
{{- end }}
