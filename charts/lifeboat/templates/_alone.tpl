{{/*
Fails if another Lifeboat works in the same namespaces: both would run every session. It is found by its ClusterRole, which
no user of a namespace can create. Only Helm with a cluster knows of others: `helm template` and Argo CD do not look.
*/}}
{{- define "lifeboat.alone" -}}
{{- if .Values.rbac.create }}
{{- $mine := include "lifeboat.instance" . }}
{{- $others := dict }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
  {{- $home := get (.metadata.annotations | default dict) "meta.helm.sh/release-namespace" }}
  {{- $is := eq (get (.metadata.labels | default dict) "app.kubernetes.io/name") "lifeboat" }}
  {{- $is = and $is (or (eq .metadata.name "lifeboat") (hasPrefix "lifeboat." .metadata.name)) }}
  {{- if and $is (ne .metadata.name $mine) (ne $home $.Release.Namespace) }}
    {{- $_ := set $others .metadata.name (printf "%s, %s" .metadata.name (ternary (printf "installed in namespace %s" $home) "not installed by Helm" (ne $home ""))) }}
  {{- end }}
{{- end }}
{{- $how := "Two may not work in the same namespace: see docs/operations.md, Several Lifeboats in one cluster." }}
{{- if .Values.watchNamespaces }}
  {{- with get $others "lifeboat" }}
    {{- fail (printf "There is a Lifeboat for all namespaces (%s). %s" . $how) }}
  {{- end }}
  {{- range $namespace := .Values.watchNamespaces }}
    {{- range (lookup "rbac.authorization.k8s.io/v1" "Role" $namespace "").items }}
      {{- with get $others .metadata.name }}
        {{- fail (printf "Another Lifeboat (%s) works in namespace %s. %s" . $namespace $how) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- else }}
  {{- range $name, $other := $others }}
    {{- if not (or (hasSuffix "-viewer" $name) (hasSuffix "-editor" $name)) }}
      {{- fail (printf "There is a Lifeboat for some namespaces (%s). Set watchNamespaces. %s" $other $how) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
