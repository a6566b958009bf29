{{- /* Names, labels and what the ImCluster's spec says about Redis, for all templates of this chart. */ -}}

{{- define "demo.name" -}}
{{- $name := .Values.imcluster.name | default .Release.Name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "imcluster.name must be lower-case letters, digits and '-', beginning with a letter, not %q" $name) -}}
{{- end -}}
{{- if gt (len $name) 52 -}}
{{- fail (printf "imcluster.name must be at most 52 characters long, not %q" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "demo.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "demo.valkeySelector" -}}
app.kubernetes.io/name: valkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "demo.webchatSelector" -}}
app.kubernetes.io/name: imcluster-webchat
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "demo.webchatImage" -}}
{{- include "demo.image" (list .Values.webchat.image .Chart.AppVersion) -}}
{{- end -}}

{{- /* An image by its digest where one is given, else by its tag; the second argument is the tag by default. */ -}}
{{- define "demo.image" -}}
{{- $image := first . -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%v" $image.repository ($image.tag | default (last .)) -}}
{{- end -}}
{{- end -}}

{{- /* Whether the ImCluster's Redis is the Valkey of this chart: not empty when the spec names no other. */ -}}
{{- define "demo.ownRedis" -}}
{{- $redis := .Values.imcluster.spec.redis | default dict -}}
{{- if not (or $redis.url $redis.urlFrom) }}true{{ end -}}
{{- end -}}

{{- /* The spec as it is applied: what was given, with the defaults of redis and exposure where they are absent. */ -}}
{{- define "demo.spec" -}}
{{- $spec := deepCopy .Values.imcluster.spec -}}
{{- $redis := deepCopy ($spec.redis | default dict) -}}
{{- if include "demo.ownRedis" . -}}
{{- if not .Values.valkey.enabled -}}
{{- fail "imcluster.spec.redis must have a url or a urlFrom when valkey.enabled is false" -}}
{{- end -}}
{{- $_ := set $redis "url" (printf "redis://%s-valkey:6379/0" (include "demo.name" .)) -}}
{{- end -}}
{{- $_ := set $spec "redis" $redis -}}
{{- if not $spec.exposure -}}
{{- $_ := set $spec "exposure" (dict "type" "Shared" "urlTemplate" "ws://localhost:6001/ws") -}}
{{- end -}}
{{- range $key, $value := $spec }}{{ if kindIs "invalid" $value }}{{ $_ := unset $spec $key }}{{ end }}{{ end -}}
{{- toYaml $spec -}}
{{- end -}}

{{- define "demo.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Of a numeric user; nothing leaves user and group to the platform. */ -}}
{{- define "demo.podSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .) }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
fsGroup: {{ . | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "demo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
