{{/*
Fails if another Lifeboat works in the same namespaces: both would run every session. Only Helm with a cluster knows of
others: `helm template` and Argo CD do not look.
*/}}
{{- define "lifeboat.alone" -}}
{{- $mine := include "lifeboat.instance" . }}
{{- $here := .Release.Namespace }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
  {{- $home := get (.metadata.annotations | default dict) "meta.helm.sh/release-namespace" }}
  {{- $is := and (eq (get (.metadata.labels | default dict) "app.kubernetes.io/name") "lifeboat") (ne $home $here) }}
  {{- if and $is $.Values.watchNamespaces (eq .metadata.name "lifeboat") }}
    {{- fail (printf "A Lifeboat for all namespaces is installed already (namespace %q). Two may not work in the same namespace: see docs/operations.md, Several Lifeboats in one cluster." $home) }}
  {{- end }}
  {{- if and $is (not $.Values.watchNamespaces) (hasPrefix "lifeboat." .metadata.name) }}
    {{- fail (printf "A Lifeboat for some namespaces is installed already (%s, namespace %q). Set watchNamespaces: two may not work in the same namespace. See docs/operations.md, Several Lifeboats in one cluster." .metadata.name $home) }}
  {{- end }}
{{- end }}
{{- range $namespace := .Values.watchNamespaces }}
  {{- range (lookup "rbac.authorization.k8s.io/v1" "Role" $namespace "").items }}
    {{- if and (hasPrefix "lifeboat." .metadata.name) (ne .metadata.name $mine) (eq (get (.metadata.labels | default dict) "app.kubernetes.io/name") "lifeboat") }}
      {{- fail (printf "Another Lifeboat (%s) works in namespace %s already. Two may not work in the same namespace: see docs/operations.md, Several Lifeboats in one cluster." .metadata.name $namespace) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
