{{- /* Names and labels that several files share. */ -}}

{{- define "patchbay.fullname" -}}
{{- if contains "patchbay" .Release.Name -}}
{{ .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-patchbay" .Release.Name | trunc 48 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "patchbay.serviceAccount" -}}
{{ default (include "patchbay.fullname" .) .Values.serviceAccount.name }}
{{- end -}}

{{- define "patchbay.selectorLabels" -}}
app.kubernetes.io/name: patchbay
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* The selector labels as key=value, separated by commas. */ -}}
{{- define "patchbay.operatorLabels" -}}
{{- $pairs := list -}}
{{- range $key, $value := fromYaml (include "patchbay.selectorLabels" .) -}}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) -}}
{{- end -}}
{{ join "," $pairs }}
{{- end -}}

{{- /* Never `managed-by: patchbay`: that label marks what the operator itself makes. */ -}}
{{- define "patchbay.labels" -}}
{{ include "patchbay.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Full name of an image: called with (dict "image" .Values.sidecar.image "chart" .Chart). */ -}}
{{- define "patchbay.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) }}
{{- end -}}
{{- end -}}
