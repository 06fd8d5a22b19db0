{{/* Labels by which the operator's Pods are found. They never change. */}}
{{- define "lifeboat.selector" -}}
app.kubernetes.io/name: lifeboat
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. */}}
{{- define "lifeboat.labels" -}}
{{ include "lifeboat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/*
Name of what stands in no namespace, and of what is made in namespaces of others. There is one Lifeboat for all
namespaces, or several for some each, of which each has a namespace of its own.
*/}}
{{- define "lifeboat.instance" -}}
lifeboat{{ if .Values.watchNamespaces }}.{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "lifeboat.serviceAccount" -}}
{{ .Values.serviceAccount.name | default "lifeboat" }}
{{- end }}

{{/* Image with the clients of an application: a value, or the name of the operator's image with a suffix, and its tag. */}}
{{- define "lifeboat.addon" -}}
{{- .image | default (printf "%s-%s:%s" .root.Values.image.repository .suffix (.root.Values.image.tag | default .root.Chart.AppVersion)) -}}
{{- end }}

{{- define "lifeboat.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}
