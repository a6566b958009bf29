{{- /* Names and labels that all templates of this chart share. */ -}}

{{- define "imcluster.name" -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") -}}
{{- end -}}

{{- define "imcluster.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "imcluster.name" .) -}}
{{- end -}}

{{- define "imcluster.selector" -}}
app.kubernetes.io/name: imcluster-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "imcluster.labels" -}}
{{ include "imcluster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "imcluster.operatorImage" -}}
{{- include "imcluster.image" (list .Values.operator.image .Chart.AppVersion) -}}
{{- end -}}

{{- define "imcluster.imserverImage" -}}
{{- include "imcluster.image" (list .Values.imserver.image .Chart.AppVersion) -}}
{{- end -}}

{{- /* An image by its digest where one is given, else by its tag; the second argument is the tag by default. */ -}}
{{- define "imcluster.image" -}}
{{- $image := first . -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%v" $image.repository ($image.tag | default (last .)) -}}
{{- end -}}
{{- end -}}

{{- /* Names, whether they were given as such or as {name: …}, joined by commas. */ -}}
{{- define "imcluster.pullSecretNames" -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets }}{{ $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) }}{{ end -}}
{{- join "," $names -}}
{{- end -}}

{{- define "imcluster.pullSecrets" -}}
{{- with include "imcluster.pullSecretNames" . }}
imagePullSecrets:
  {{- range splitList "," . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Where pods of this chart may run: the operator's and those of the hooks alike. */ -}}
{{- define "imcluster.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* The same for a hook. Of the affinity it takes the nodes only: where replicas must keep apart from each other, there
       may be no room for one more. */ -}}
{{- define "imcluster.hookScheduling" -}}
{{- include "imcluster.scheduling" . }}
{{- with .Values.affinity.nodeAffinity }}
affinity:
  nodeAffinity: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "imcluster.env" -}}
- {name: IMOPERATOR_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: IMOPERATOR_LEASE_NAME, value: {{ include "imcluster.name" . | quote }}}
- {name: IMOPERATOR_WATCH_NAMESPACES, value: {{ join "," .Values.watchNamespaces | quote }}}
- {name: IMOPERATOR_IMAGE, value: {{ include "imcluster.imserverImage" . | quote }}}
- {name: IMOPERATOR_IMAGE_PULL_POLICY, value: {{ .Values.imagePullPolicy | quote }}}
- {name: IMOPERATOR_IMAGE_PULL_SECRETS, value: {{ include "imcluster.pullSecretNames" . | quote }}}
- name: IMOPERATOR_RUN_AS_USER
  value: {{ kindIs "invalid" .Values.runAsUser | ternary "platform" (.Values.runAsUser | int64 | toString) | quote }}
- {name: IMOPERATOR_RESYNC_SECONDS, value: {{ .Values.operator.resyncSeconds | quote }}}
- {name: IMOPERATOR_LOG_LEVEL, value: {{ .Values.operator.logLevel | quote }}}
- {name: IMOPERATOR_LOG_FORMAT, value: {{ .Values.operator.logFormat | quote }}}
{{- end -}}

{{- define "imcluster.podSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .Values.runAsUser) }}
runAsUser: {{ .Values.runAsUser | int64 }}
runAsGroup: {{ .Values.runAsUser | int64 }}
fsGroup: {{ .Values.runAsUser | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "imcluster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* A matcher for the namespaces of the ImClusters that this installation looks after. */ -}}
{{- define "imcluster.inNamespaces" -}}
{{- if .Values.watchNamespaces -}}
namespace=~"{{ join "|" .Values.watchNamespaces }}"
{{- else -}}
namespace!=""
{{- end -}}
{{- end -}}
