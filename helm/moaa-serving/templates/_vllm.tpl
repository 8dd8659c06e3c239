{{- /* The command of one engine: the same arguments as in moaa/engines/server.py. */}}
{{- define "moaa.command" -}}
{{- if and (eq .nodes.device "cuda") .slot -}}
# The init container says what the slot's pointer names; each answer tells the revision.
command:
  - sh
  - -c
  - |
    . /tmp/moaa-slot
    exec vllm serve "$MOAA_MODEL" --fingerprint-mode=custom --fingerprint-value="$MOAA_REVISION" "$@"
  - sh
{{- else if eq .nodes.device "cuda" -}}
command: [vllm, serve, {{ .path | quote }}]
{{- else -}}
# The `vllm` script of the CPU build fails: it asks for the metadata of a package that is not installed.
command:
  - sh
  - -c
  - |
    dtype=$1
    shift
    if [ "$dtype" = bfloat16 ] && ! grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
      echo "this CPU has no bfloat16 instructions, which makes bfloat16 several times slower: serving in float32"
      dtype=float32
    fi
    {{- if .slot }}
    # The init container says what the slot's pointer names; each answer tells the revision.
    . /tmp/moaa-slot
    set -- --model="$MOAA_MODEL" --fingerprint-mode=custom --fingerprint-value="$MOAA_REVISION" "$@"
    {{- end }}
    exec python3 -m vllm.entrypoints.openai.api_server --dtype="$dtype" "$@"
  - sh
  - {{ .dtype | quote }}
  {{- if not .slot }}
  - {{ printf "--model=%s" .path | quote }}
  {{- end }}
{{- end }}
args:
  - {{ printf "--served-model-name=%s" .servedName | quote }}
  - --port=8000
  - --disable-uvicorn-access-log
  {{- if eq .nodes.device "cuda" }}
  - {{ printf "--dtype=%s" .dtype | quote }}
  {{- end }}
  - "--generation-config=vllm" # else a model's own file (top_k, penalties) adds to the recipe's sampling
  {{- if or .maxNumSeqs (ne .nodes.device "cuda") }}
  - --max-num-seqs={{ int64 (.maxNumSeqs | default 64) }}
  {{- end }}
  {{- if .revision }}
  - {{ printf "--revision=%s" .revision | quote }}
  {{- /* A tokenizer of its own is in another repository, which has other revisions. */}}
  {{- $own := false }}
  {{- range .extraArgs }}
  {{- $own = or $own (regexMatch "^--tokenizer(-revision)?(=|$)" (toString .)) }}
  {{- end }}
  {{- if not $own }}
  - {{ printf "--tokenizer-revision=%s" .revision | quote }}
  {{- end }}
  {{- end }}
  {{- if .maxModelLen }}
  - --max-model-len={{ int64 .maxModelLen }}
  {{- end }}
  {{- if .quantization }}
  - {{ printf "--quantization=%s" .quantization | quote }}
  {{- end }}
  {{- if eq .nodes.device "cuda" }}
  - --tensor-parallel-size={{ int64 .tensorParallelSize }}
  {{- else }}
  - --enforce-eager
  # A request with a seed kills the CPU engine if its prompt is split over steps.
  - --no-enable-chunked-prefill
  - --kv-cache-memory-bytes={{ mulf .kvCacheGib 1073741824 | int64 }}
  {{- end }}
  {{- if eq .task "reward" }}
  - --runner=pooling
  - --convert=classify
  {{- else if eq .task "embed" }}
  - --runner=pooling
  - --convert=embed
  - {{ dict "pooling_type" "LAST" "use_activation" false | toJson | printf "--pooler-config=%s" | quote }}
  {{- end }}
  {{- range .extraArgs }}
  - {{ . | quote }}
  {{- end }}
{{- end }}

{{- define "moaa.env" -}}
{{- /* USER: torch asks for the user's name; a user id that the image does not know has none. */}}
{{- $env := dict "HOME" "/tmp" "USER" "moaa" "VLLM_NO_USAGE_STATS" "1" "HF_HUB_DISABLE_TELEMETRY" "1" }}
{{- if eq .model.kind "hub" }}
{{- $_ := set $env "HF_HOME" "/models/hub" }}
{{- else }}
{{- $_ := set $env "HF_HUB_OFFLINE" "1" }}
{{- end }}
{{- if eq .model.nodes.device "cpu" }}
{{- /* vLLM binds to the node's first cores, so all engines would share these: a pod's limit is time, not cores. */}}
{{- $_ := set $env "VLLM_CPU_OMP_THREADS_BIND" "nobind" }}
{{- $_ := set $env "OMP_NUM_THREADS" (ceil .model.nodes.cpus | toString) }}
{{- /* Log-probabilities need a function that torch compiles with a C++ compiler, which the image lacks. */}}
{{- $_ := set $env "TORCHDYNAMO_DISABLE" "1" }}
{{- end }}
{{- $_ := mergeOverwrite $env .model.env -}}
env:
  {{- range $name, $value := $env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- if and (eq .model.kind "hub") (not (hasKey $env "HF_TOKEN")) }}
  - name: HF_TOKEN
    valueFrom:
      secretKeyRef: {name: {{ .root.Values.hub.secretName }}, key: HF_TOKEN, optional: true}
  {{- end }}
  {{- if and .root.Values.apiKey.enabled (not (hasKey $env "VLLM_API_KEY")) }}
  - name: VLLM_API_KEY
    valueFrom:
      secretKeyRef: {name: {{ .root.Values.apiKey.secretName }}, key: VLLM_API_KEY}
  {{- end }}
{{- end }}

{{- /* GiB as a quantity. */}}
{{- define "moaa.gib" -}}
{{- $mib := mulf . 1024 | ceil | int64 }}
{{- if mod $mib 1024 }}{{ $mib }}Mi{{ else }}{{ div $mib 1024 }}Gi{{ end }}
{{- end }}

{{- /* Cores as a quantity. */}}
{{- define "moaa.cores" -}}
{{- $milli := mulf . 1000 | ceil | int64 }}
{{- if mod $milli 1000 }}{{ $milli }}m{{ else }}{{ div $milli 1000 }}{{ end }}
{{- end }}

{{- /* Requests and limits: the pool's share for each GPU, and the GPUs themselves if .accelerator. */}}
{{- define "moaa.resources" -}}
{{- $m := .model }}
{{- $shares := max 1 $m.gpus }}
{{- $own := dict "cpu" (include "moaa.cores" (mulf $m.nodes.cpus $shares)) "memory" (include "moaa.gib" (mulf $m.nodes.memoryGib $shares)) }}
{{- $resources := mergeOverwrite (dict "requests" (deepCopy $own) "limits" (deepCopy $own)) (deepCopy $m.resources) }}
{{- if and .accelerator $m.gpus }}
{{- $_ := set $resources.limits $m.nodes.accelerator (int64 $m.gpus) }}
{{- $_ := set $resources.requests $m.nodes.accelerator (int64 $m.gpus) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}
